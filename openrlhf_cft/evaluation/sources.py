"""The data sets of an evaluation (paths, hub names or benchmarks), each with a short name, its rows and its verifier.

Several data sets, `--data.dataset a,b`, are evaluated one by one. Annotation, in contrast, joins them into one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from openrlhf_cft.data.location import without_credentials
from openrlhf_cft.data.source import FILE_TYPES, SourceSettings, load_source
from openrlhf_cft.errors import InputError
from openrlhf_cft.evaluation.benchmarks import ANSWER, BENCHMARKS, QUESTION, load_benchmark
from openrlhf_cft.verify import is_reward_file
from openrlhf_cft.verify.settings import VerifierSettings

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSet:
    """One data set, loaded."""

    name: str  # for tables and files; short, so it depends on the other data sets
    key: str  # for the folder of its state; does not depend on the other data sets
    rows: Dataset
    source: SourceSettings  # which columns, and how a prompt is made
    verifier: VerifierSettings
    origin: dict[str, Any]  # JSON: where a benchmark comes from; else empty

    @property
    def has_answers(self) -> bool:
        """Whether its verifier finds answers in responses; a reward file gives a score only."""
        return not is_reward_file(self.verifier.verifier)

    def record(self) -> dict[str, Any]:
        """The facts about it that the report gives, as JSON."""
        return {
            "dataset": without_credentials(self.source.dataset),
            "rows": len(self.rows),
            **self.origin,
            **self.verifier.record(),
        }


def load_data_sets(
    source: SourceSettings, verifier: VerifierSettings, own_verifier: bool, directory: str | None
) -> list[DataSet]:
    """Load the data sets that `source.dataset` names, separated by commas.

    Args:
        source: how rows become prompts; its columns apply to data sets that are not benchmarks.
        verifier: the verifier for all data sets.
        own_verifier: whether a benchmark's own verifier replaces it.
        directory: folder of local copies of benchmarks; None for the hub.

    Raises:
        InputError: a data set cannot be loaded, or is named twice.
    """
    names = [name.strip() for name in source.dataset.split(",")]
    data_sets = []
    for name, label in zip(names, short_names(names), strict=True):
        if is_benchmark(name):
            data_sets.append(_benchmark(name, source, verifier, own_verifier, directory))
        else:
            set_source = replace(source, dataset=name)
            data_sets.append(DataSet(label, state_key(name), load_source(set_source), set_source, verifier, {}))
    return data_sets


def is_benchmark(name: str) -> bool:
    """Whether `--data.dataset NAME` is a benchmark: one of `BENCHMARKS`, and not an existing path."""
    return name in BENCHMARKS and not os.path.exists(name)


def _benchmark(
    name: str, source: SourceSettings, verifier: VerifierSettings, own_verifier: bool, directory: str | None
) -> DataSet:
    benchmark = BENCHMARKS[name]
    problems = load_benchmark(name, directory, source.max_samples)
    columns = replace(
        source, dataset=name, dataset_split=benchmark.split, input_key=QUESTION, label_key=ANSWER, id_key=None
    )
    if own_verifier:
        verifier = replace(verifier, verifier=benchmark.verifier)
    origin: dict[str, Any] = {
        k: v for k, v in asdict(benchmark).items() if k in ("repository", "config", "split", "revision") and v
    }
    if directory:
        origin["directory"] = directory
    if problems.without_answer:
        origin["no_gold_answer"] = problems.without_answer
        missing = "evaluate: %s: %d of its rows have no gold answer and are left out"
        logger.warning(missing, name, problems.without_answer)
    return DataSet(name, state_key(name), problems.rows, columns, verifier, origin)


def state_key(name: str) -> str:
    """The folder of a data set's state: the last part of its name, and a hash of all of it."""
    full = os.path.abspath(name) if os.path.exists(name) else name
    return f"{_parts(name)[-1]}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"


def short_names(names: Sequence[str]) -> list[str]:
    """A name for each data set that a file can have: the last parts of its path, as many as make the names differ.

    Raises:
        InputError: a data set is named twice, or the names of two cannot be made different.
    """
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--data.dataset: {name!r} is named twice")
    parts = [_parts(name) for name in names]
    for length in range(1, max(map(len, parts)) + 1):
        short = ["-".join(part[-length:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    raise InputError(f"--data.dataset: {', '.join(names)} are too much alike to be told apart by name")


def _parts(name: str) -> list[str]:
    """The parts of a path, URI or hub name (`openai/gsm8k@main`), in characters that a file name can have."""
    path = without_credentials(name).partition("://")[2] if "://" in name else name.replace("@", "-")
    stem, extension = os.path.splitext(path)
    path = stem if extension.lower() in FILE_TYPES else path
    parts = [re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-.") for part in path.split("/")]
    return [part for part in parts if part] or ["data"]
