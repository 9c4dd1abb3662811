"""Find errors before a model loads: in modes, versions, the model and data sets. Each error is one sentence.

    check(args, "critical_mask")        # args of the stock script; InputError where training would fail

Local Parquet files are read in full, which takes seconds. The rows of anything else (hub names, JSON, `save_to_disk`)
are checked by `CriticalTokenDataset` once OpenRLHF has loaded them.
No torch, DeepSpeed or OpenRLHF is imported here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from packaging.specifiers import SpecifierSet

from openrlhf_cft.data import records
from openrlhf_cft.data.location import location
from openrlhf_cft.data.model_files import first_line, load_config
from openrlhf_cft.data.tokenizer import load_tokenizer, means_the_same
from openrlhf_cft.errors import InputError
from openrlhf_cft.train import row_checks, rows
from openrlhf_cft.train.arguments import Options

SUPPORTED_OPENRLHF = ">=0.11.2,<0.12"
DATA_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".arrow", ".py")  # those of `openrlhf/datasets/utils.py`


@dataclass(frozen=True)
class Expected:
    """The options and the model that a data set must fit."""

    options: Options
    max_length: int  # tokens of one sequence
    tokenizer: Any  # of the model
    vocab_size: int | None  # rows of the model's embeddings; None if its configuration does not say
    hub: bool = True  # names that are not a local path are names on the Hugging Face hub


def check_openrlhf(version: str | None = None, any_version: bool = False) -> None:
    """Refuse an OpenRLHF version that may lack the names that `train` relies on.

    Args:
        version: checked instead of the installed one.
        any_version: accept any version, as for the stock flags.

    Raises:
        InputError: OpenRLHF is not installed, or its version is outside the supported range.
    """
    if any_version and find_spec("openrlhf") is not None:
        return  # this also accepts a clone that is on the path but not installed
    try:
        version = version or metadata.version("openrlhf")
    except metadata.PackageNotFoundError:
        raise InputError(
            f"openrlhf is not installed: pip install 'openrlhf{SUPPORTED_OPENRLHF}', see its own instructions for GPUs"
        ) from None
    if not SpecifierSet(SUPPORTED_OPENRLHF).contains(version, prereleases=True):
        raise InputError(f"--critical_mask supports openrlhf{SUPPORTED_OPENRLHF}, and {version} is installed")


def check(args: Any, options: Options) -> int | None:
    """Check everything that the stock script was given.

    Args:
        args: its parsed and nested flags.
        options: ours. Without a mask column nothing is checked: the stock script takes everything then.

    Returns:
        The rows of the model's embeddings, for `CriticalTokenDataset`; None if they are not known.

    Raises:
        InputError: one sentence that names the value.
    """
    if options.column is None:
        return None
    check_modes(args)
    if not args.data.dataset:
        raise InputError("--data.dataset is missing: the annotated data set to train on")
    model = args.model.model_name_or_path
    if not model:
        raise InputError("--model.model_name_or_path is missing: the model to train")
    vocab_size = getattr(load_config(model).get_text_config(), "vocab_size", None)
    expected = Expected(options, args.data.max_len, load_tokenizer(model), vocab_size, hub=not args.use_ms)
    counts = check_dataset(args.data.dataset, expected)
    if counts.annotated == 0 and not counts.elsewhere:
        raise InputError(f"no row of --data.dataset {args.data.dataset!r} has weights in column {options.column!r}")
    if args.eval.dataset:
        check_dataset(args.eval.dataset, expected)
    if not counts.texts and not counts.elsewhere and args.data.dataset_probs is None:
        refuse_small(min(counts.usable, args.data.max_samples), "{rows} rows have a token to train", args)
    return expected.vocab_size


def check_modes(args: Any) -> None:
    """Refuse the stock modes that our three classes do not support."""
    sizes = (
        ("--ds.ring_attn_size", args.ds.ring_attn_size),
        ("--ds.tensor_parallel_size", args.ds.tensor_parallel_size),
    )
    for flag, size in sizes:
        if size > 1:
            raise InputError(f"{flag} {size} cannot be combined with --critical_mask yet: use 1")
    if args.ds.deepcompile:
        raise InputError("--ds.deepcompile cannot be combined with --critical_mask yet")
    row_checks.refuse_pretraining(args.model.pretrain_mode_enable)


@dataclass(frozen=True)
class DatasetCounts:
    """The rows of data sets that training would use."""

    annotated: int = 0  # rows with weights, one of them above zero
    usable: int = 0  # rows with a trained token
    texts: int = 0  # rows of text; only the stock data set knows which of them can be trained
    elsewhere: bool = False  # whether there are rows that only OpenRLHF can read

    def __add__(self, other: DatasetCounts) -> DatasetCounts:
        return DatasetCounts(
            self.annotated + other.annotated,
            self.usable + other.usable,
            self.texts + other.texts,
            self.elsewhere or other.elsewhere,
        )


def check_dataset(sources: str, expected: Expected) -> DatasetCounts:
    """Check the data sets that the flag names, separated by commas, each with an optional `@subdirectory`."""
    counts = DatasetCounts()
    for source in (part.strip() for part in sources.split(",")):
        files = local_parquet(source, expected.hub)
        counts += _check_files(source, files, expected) if files else DatasetCounts(elsewhere=True)
    return counts


def local_parquet(source: str, hub: bool) -> list[Path]:
    """The Parquet files that OpenRLHF would load for `source`; empty if `source` is something else that exists.

    Raises:
        InputError: nothing of that name exists, or the directory is empty.
    """
    name, _, subdirectory = (part.strip() for part in source.partition("@"))
    path = Path(name)
    if path.is_dir() and not any(path.iterdir()):
        raise InputError(f"data set {name!r} is an empty directory")
    if path.exists():
        folder = path / subdirectory if subdirectory and path.is_dir() else path
        return records.parquet_files(folder) if path.is_dir() or path.suffix == ".parquet" else []
    if path.is_absolute() or name.startswith(".") or name.endswith(DATA_SUFFIXES) or len(path.parts) > 2:
        raise InputError(f"data set {name!r} does not exist")
    if not hub:
        return []
    import datasets

    try:
        datasets.load_dataset_builder(name, data_dir=subdirectory or None)
    except Exception as error:  # offline, misspelt, private: one line says which
        raise InputError(
            f"data set {name!r} is no local path and does not load from the hub: {first_line(error)}"
        ) from None
    return []


def _check_schema(name: str, file: Path, expected: Expected) -> None:
    """Refuse a file that lacks the columns, or was annotated with another tokenizer."""
    row_checks.require_columns(
        location(file).schema().names, str(expected.options.column), name, expected.options.missing
    )
    stored = (records.read_metadata(file) or {}).get("tokenizer_fingerprint")
    if not means_the_same(stored, expected.tokenizer, name):
        raise InputError(
            f"{name} was annotated with another tokenizer (fingerprint {stored}) than the model's "
            f"({records.tokenizer_fingerprint(expected.tokenizer)}): its token ids mean something else to this model"
        )


def _check_files(source: str, files: list[Path], expected: Expected) -> DatasetCounts:
    """Check the Parquet files of one data set."""
    name = f"data set {source!r}"
    for file in files:
        _check_schema(name, file, expected)
    parts = []
    column, missing = str(expected.options.column), expected.options.missing
    first = 0
    for table in _tables(files, column):
        try:
            part = rows.count_rows(table, column, expected.max_length, missing, first)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        row_checks.refuse_beyond(name, part.largest_id, expected.vocab_size)
        parts.append(part)
        first += len(table)
    if first == 0:
        raise InputError(f"{name} has no rows")
    counts = DatasetCounts(
        annotated=sum(int(((part.kind_R == rows.ANNOTATED) & (part.trained_R > 0)).sum()) for part in parts),
        usable=sum(int((part.trained_R > 0).sum()) for part in parts),
        texts=sum(int((part.kind_R == rows.TEXT).sum()) for part in parts),
    )
    if missing == "error" and not counts.usable:
        raise InputError(row_checks.no_trained_token(name, first, column, expected.max_length))
    return counts


def _tables(files: list[Path], column: str) -> Iterator[pa.Table]:
    for file in files:
        names = location(file).schema().names
        columns = row_checks.columns_to_read(names, column) or names[:1]  # for the number of rows
        for batch in location(file).batches(columns, row_checks.ROWS_AT_ONCE):
            yield pa.Table.from_batches([batch])


def check_rows(args: Any) -> None:
    """Refuse local files with fewer rows than one optimizer step takes, for the stock data set and flags.

    Args:
        args: of the stock script.

    Raises:
        InputError: as `refuse_small`.
    """
    names = [part.strip() for part in (args.data.dataset or "").split(",")]
    counts = [count_local_rows(Path(name)) for name in names]
    rows = sum(count for count in counts if count is not None)
    if None not in counts and args.data.dataset_probs is None:
        refuse_small(min(rows, args.data.max_samples), "the data set has {rows} rows", args)


def count_local_rows(path: Path) -> int | None:
    """Rows of a local Parquet or JSON lines data set; None for anything else, which OpenRLHF reads."""
    if path.suffix == ".jsonl" and path.is_file():
        with path.open("rb") as file:
            return sum(bool(line.strip()) for line in file)
    if not (path.is_dir() or (path.suffix == ".parquet" and path.is_file())):
        return None
    files = records.parquet_files(path)
    return sum(pq.ParquetFile(file).metadata.num_rows for file in files) if files else None


def refuse_small(rows: int, what: str, args: Any) -> None:
    """Refuse fewer rows than one optimizer step takes: the stock `fit` would raise after the model has loaded.

    Args:
        rows: number of rows of one epoch.
        what: the start of the message, with `{rows}` in place of that number.
        args: of the stock script.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    batch, micro = args.train.batch_size, args.train.micro_batch_size
    micro_batches = rows // world // micro * args.train.max_epochs  # the rest of each epoch is dropped
    if micro_batches >= max(1, batch // micro // world):
        return
    start = f"{what.format(rows=rows)}, and one optimizer step takes more (--train.batch_size {batch}, "
    start += f"--train.micro_batch_size {micro}, {args.train.max_epochs} epochs): "
    if rows < world:
        raise InputError(f"{start}add rows, each of the {world} processes needs one")
    fitting = min(micro, rows // world)
    lower = f"--train.batch_size to {rows // (fitting * world) * fitting * world}"
    lower += f" and --train.micro_batch_size to {fitting}" if fitting < micro else ""
    raise InputError(f"{start}lower {lower}, or add rows")
