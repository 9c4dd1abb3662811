"""The state of a resumable job: configuration, rendered prompts, finished rows. Annotation and evaluation use it.

A work directory may be on any filesystem that pyarrow knows. It holds `config.json` (the preparation writes it last),
`prompts.parquet`, `outcomes/` and `checkpoint/` (Ray Data's), `seconds.json`, `failed.jsonl` (rows that the last run
could not finish), `engine.log` (of the last engine that failed) and on a local filesystem `lock`. A job with the same
configuration resumes where it stopped; another configuration is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from openrlhf_cft.data.location import Location, lock, without_credentials
from openrlhf_cft.data.model_files import load_config
from openrlhf_cft.data.prompts import write_prompts
from openrlhf_cft.data.provenance import write_json
from openrlhf_cft.data.records import PROMPT, PROMPT_IDS, tokenizer_fingerprint
from openrlhf_cft.data.rendering import begins_with_bos
from openrlhf_cft.data.source import GOLD, SourceSettings, load_source
from openrlhf_cft.display import visible
from openrlhf_cft.engine.vllm_engine import EngineSettings
from openrlhf_cft.errors import InputError
from openrlhf_cft.jobs.finished_rows import Outcomes
from openrlhf_cft.verify.settings import VerifierSettings, try_reward_file

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

NEW_PROMPTS = "prompts.new.parquet"  # the name of the prompts until they are known to belong to this run
FORMAT = 2  # of the directory; rows have numbers since 2
FINGERPRINTS = {"model": "weights", "verifier": "verifier_sha256"}  # which setting fingerprints the content of a name
LATER = ("weights", "stop_token_ids")  # directories of earlier versions lack these settings, and resume without them


@dataclass(frozen=True)
class Workdir:
    """Paths and steps of one job's state."""

    root: Location
    name: str  # of the command, for what it prints

    @property
    def prompts(self) -> Location:
        """The rendered rows, in the order of the source."""
        return self.root / "prompts.parquet"

    @property
    def config(self) -> Location:
        """The file of the configuration, which the preparation writes last."""
        return self.root / "config.json"

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
        """Let only one process at a time work on the directory. Bad input leaves it as it was, or leaves none.

        Raises:
            InputError: another process works on it, or it cannot be created.
        """
        fresh = not self.config.exists()
        try:
            made = self.root.make_dirs()
            held = lock(self.root)
        except OSError as error:
            raise InputError(f"--ckpt.output_dir: cannot write to {str(self.root)!r}: {error}") from None
        try:
            yield
        except InputError:
            # The state belongs to the bad input: with better input, the command would be refused as another run.
            if fresh and not self.outcomes.data.exists():
                self._delete(made)
            raise
        finally:
            if held is not None:
                held.close()

    def _delete(self, made: list[Location]) -> None:
        """Delete the leftovers of a preparation, and the directories that it made. A dry run's estimate is kept."""
        if self.root in made:
            self.root.clear()
        for file in (self.config, self.prompts, self.root / NEW_PROMPTS):
            if file.exists():
                file.delete()
        for directory in reversed(made):
            directory.delete_if_empty()

    def prepare(
        self, source: SourceSettings, engine: EngineSettings, settings: dict[str, Any], rows: Dataset | None = None
    ) -> dict[str, Any]:
        """Check all input, render the prompts once, and claim the directory for this configuration.

        Args:
            source: the rows.
            engine: only the tokenizer and the configuration of its model are loaded here.
            settings: everything else that decides the outcome, as JSON.
            rows: the rows of the source to take; None for all of them.

        Returns:
            The configuration: `settings`, the source, fingerprints of tokenizer and prompts, the number of rows.

        Raises:
            InputError: names the wrong value, or the differences from the run that the directory holds.
        """
        load_config(engine.model, revision=engine.engine_args.get("revision"))
        tokenizer = engine.load_tokenizer()
        if source.apply_chat_template and not tokenizer.chat_template:
            raise InputError(
                f"--data.apply_chat_template: the tokenizer of {engine.model!r} has no chat template; use "
                "--data.input_template"
            )
        stops = engine.stop_token_ids(tokenizer)
        data = load_source(source) if rows is None else rows
        self.root.make_dir()
        fresh = self.root / NEW_PROMPTS
        config = {
            "format": FORMAT,
            **settings,
            "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer),
            "stop_token_ids": sorted(stops),
            "source": _source_record(source, tokenizer),
            "source_fingerprint": write_prompts(data, tokenizer, source, fresh, stops),
            "rows": len(data),
        }
        path = self.config
        if path.exists():
            fresh.delete()
            before = json.loads(path.read_text())
            self._refuse_other(before, json.loads(json.dumps(config)))
            if any(not before.get(key) for key in LATER if key in config):
                write_json(path, config)  # from now on a change of these settings is noticed
        else:
            fresh.move(self.prompts)
            write_json(path, config)
        return config

    def _refuse_other(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        """Raise InputError if the directory holds another run's configuration."""
        changed = [
            f"{key} was {before.get(key)!r} and is now {now.get(key)!r}"
            for key in {**before, **now}  # a setting that is not given now may have been given then
            if before.get(key) != now.get(key)
            and not (key in LATER and not before.get(key))
            and not _moved(key, before, now)
        ]
        if changed:
            raise InputError(
                f"--ckpt.output_dir: {str(self.root)!r} holds another run ({'; '.join(changed)}); "
                "give another directory, or delete this one"
            )

    def first_prompt(self, engine: EngineSettings, stop: Sequence[str] = ()) -> str:
        """The first prompt as the model gets it, and what ends a response. A wrong template becomes visible here."""
        tokenizer, row = engine.load_tokenizer(), next(self.prompts.rows([PROMPT, PROMPT_IDS]))
        ids = row[PROMPT_IDS]
        shown = visible(tokenizer.decode(ids)).replace("\n", "\\n")
        tokens = tokenizer.convert_ids_to_tokens(sorted(engine.stop_token_ids(tokenizer)))
        ends = ", ".join([*tokens, *map(repr, stop)])
        return f"{self.name}: the first prompt, {len(ids)} tokens: {shown}\n{self.name}: a response ends with {ends}"

    def try_verifier(self, settings: VerifierSettings) -> None:
        """Let a user's reward file judge an empty response to the first row, before an engine starts.

        Raises:
            InputError: the file fails, with its error, or exceeds its limits.
        """
        first = next(self.prompts.rows([GOLD, PROMPT]))
        try_reward_file(settings, first[GOLD], first[PROMPT])


def _moved(key: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether only the path or the name of a model or a file has changed, and its content is the same."""
    fingerprint = FINGERPRINTS.get(key, "")
    known = before.get(fingerprint)
    return bool(known) and known == now.get(fingerprint)


def _source_record(source: SourceSettings, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The source as JSON. Later versions' settings that change nothing are left out, so earlier runs can resume."""
    record = asdict(source)
    record["dataset"] = ",".join(without_credentials(name) for name in source.dataset.split(","))
    if source.output_key is None:
        del record["output_key"]
    if not begins_with_bos(tokenizer):
        del record["add_bos"]
    if source.special_tokens == "auto":
        del record["special_tokens"]
    return record
