"""The rows to work on: any OpenRLHF-style data set, and the id of each of its rows.

Data sets load as OpenRLHF's `blending_datasets` does (hub name, local directory, .json/.jsonl/.csv/.parquet), which is
not imported: `openrlhf.datasets` imports DeepSpeed, and a process near vLLM must not.
"""

from __future__ import annotations

import atexit
import bz2
import csv
import gzip
import json
import lzma
import os
import tempfile
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openrlhf_cft.data.literal_text import SPECIAL_TOKENS
from openrlhf_cft.data.location import location, without_credentials
from openrlhf_cft.data.model_files import first_line
from openrlhf_cft.data.plain_text import plain_text, text_type
from openrlhf_cft.data.records import ANNOTATION_COLUMNS, ID
from openrlhf_cft.data.rendering import check_template
from openrlhf_cft.errors import InputError, listed

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

GOLD = "_gold"  # the gold answer as text
NUMBER = "_number"  # of the row in the source, from 0
GIVEN_IDS = "_given_token_ids"  # of a response that is given; the column is there only with `output_key`
TAKEN = (*ANNOTATION_COLUMNS, GOLD, NUMBER, GIVEN_IDS)
MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "<NA>", "#N/A"]  # in other columns of a CSV
ADD_BOS = ("auto", "never")
ERRORS = 10  # rows that are named together
COMPRESSED = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
FILE_TYPES = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}


@dataclass(frozen=True)
class SourceSettings:
    """Where the rows are and how a prompt is made of one. Names as in OpenRLHF's `--data.*` flags."""

    dataset: str  # one, or several separated by commas
    dataset_split: str = "train"
    input_key: str = "input"
    label_key: str = "label"
    output_key: str | None = None  # of a given response to annotate; None: the model's own
    id_key: str | None = None  # None: the column `id` when there is one, else the row number
    apply_chat_template: bool = False
    input_template: str | None = None
    max_samples: int = 1_000_000
    add_bos: str = "auto"  # before a prompt, where the tokenizer puts it before a text by itself; or never
    special_tokens: str = "auto"  # that a question or response has written in it: text, or control tokens

    @property
    def literal(self) -> bool:
        """Whether special tokens that a question or response has written in it stay text."""
        return self.special_tokens != "control"

    @property
    def rendered_before(self) -> bool:
        """Whether the input is the prompt as it is, in no template."""
        return not self.apply_chat_template and self.input_template is None

    def __post_init__(self) -> None:
        if self.add_bos not in ADD_BOS:
            raise InputError(f"--data.add_bos: {self.add_bos!r} is neither of {', '.join(ADD_BOS)}")
        if self.special_tokens not in SPECIAL_TOKENS:
            known = ", ".join(SPECIAL_TOKENS)
            raise InputError(f"--data.special_tokens: {self.special_tokens!r} is none of {known}")
        if self.input_template is not None:
            check_template(self.input_template)
        if self.max_samples < 1:
            raise InputError(f"--data.max_samples: {self.max_samples} must be at least 1")


def load_source(settings: SourceSettings) -> Dataset:
    """The source rows; those of several data sets, `a,b`, one after the other, a column that one lacks being null.

    Raises:
        InputError: nothing to load at `settings.dataset`, no row, a missing column, or data sets whose columns do not
            fit together; the message names it.
    """
    import datasets

    names = [name.strip() for name in settings.dataset.split(",")]
    sources = [_load_one(name, settings) for name in names]
    try:
        data = sources[0] if len(sources) == 1 else datasets.concatenate_datasets(sources)
    except Exception as error:  # a column has another type in each; datasets raises several types for it
        raise InputError(f"--data.dataset: {settings.dataset!r} cannot be read as one: {error}") from error
    return data.select(range(min(settings.max_samples, len(data))))


def _load_one(dataset: str, settings: SourceSettings) -> Dataset:
    """The rows of one data set, which has the columns that the settings name."""
    import datasets

    cache = None
    if "://" in dataset:
        cache = tempfile.TemporaryDirectory(prefix="openrlhf_cft.")
        atexit.register(cache.cleanup)  # the data set is mapped from there
        dataset = _fetch(dataset, cache.name)
    name, _, data_dir = dataset.partition("@")  # as in OpenRLHF: name@directory
    extension = _file_extension(name)
    if extension in FILE_TYPES and not os.path.exists(name):
        raise InputError(f"--data.dataset: no file {name!r}")
    if os.path.isfile(name) and not os.path.getsize(name):
        raise InputError(f"--data.dataset: the file {name!r} is empty")
    try:
        if extension in FILE_TYPES:
            options = _csv_options(name, settings) if extension == ".csv" else {}
            data = datasets.load_dataset(
                FILE_TYPES[extension], data_files=name, cache_dir=cache and cache.name, **options
            )
        elif os.path.isdir(name) and os.path.exists(os.path.join(name, "state.json")):
            data = datasets.load_from_disk(name)
        else:
            data = datasets.load_dataset(name, data_dir=data_dir or None, cache_dir=cache and cache.name)
    except Exception as error:  # datasets raises many types for a bad path, a bad file, an unreachable hub
        cause = _json_problem(name) if FILE_TYPES.get(extension) == "json" else None
        raise InputError(f"--data.dataset: cannot load {name!r}: {cause or _root_cause(error)}") from error
    if isinstance(data, dict):
        if settings.dataset_split not in data:
            raise InputError(f"--data.dataset_split: {settings.dataset_split!r} is not in {sorted(data)} of {name!r}")
        data = data[settings.dataset_split]
    if len(data) == 0:
        raise InputError(f"--data.dataset: {name!r} has no rows")
    problems = list(_column_problems(data, settings, name))
    if problems:
        raise listed(f"{name!r} does not fit the flags:", problems)
    return data


def _column_problems(data: Dataset, settings: SourceSettings, name: str) -> Iterator[str]:
    """What is wrong with the columns that the settings name, all of it: one run says what else has to change."""
    columns = {flag: getattr(settings, flag) for flag in ("input_key", "label_key", "output_key")}
    for flag, column in {**columns, "id_key": id_key(data, settings)}.items():
        if column is not None and column not in data.column_names:
            yield f"--data.{flag}: no column {column!r} in {name!r}, which has {data.column_names}"
        elif flag in ("label_key", "id_key") and column is not None:
            problem = text_type(data.features.arrow_schema.field(column).type)
            if problem is not None:
                yield f"--data.{flag}: column {column!r} holds {problem}; give text or numbers"


def _file_extension(name: str) -> str:
    """The extension that says what a file is, without that of its compression: `.jsonl` of `rows.jsonl.gz`."""
    base, extension = os.path.splitext(name.lower())
    return os.path.splitext(base)[-1] if extension in COMPRESSED else extension


def _csv_options(name: str, settings: SourceSettings) -> dict[str, Any]:
    """How pandas reads a CSV file: the columns that are used stay the text that is there, 007 or None or 1.50."""
    named = {settings.input_key, settings.label_key, settings.output_key, settings.id_key or ID} - {None}
    with _opener(name)(name, "rt", encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    missing = {column: MISSING for column in header if column not in named}
    return {"converters": dict.fromkeys(named, str), "keep_default_na": False, "na_values": missing}


def _opener(name: str) -> Any:
    """What opens a file that may be compressed."""
    return COMPRESSED.get(os.path.splitext(name.lower())[1], open)


def _json_problem(name: str) -> str | None:
    """What is wrong with the first line of a JSON Lines file that is none, and which it is; None where all are."""
    try:
        with _opener(name)(name, "rb") as file:
            for number, line in enumerate(file, 1):
                if number == 1 and line.lstrip().startswith(b"["):  # one array over many lines
                    return None
                try:
                    json.dumps(json.loads(line or b"null"), ensure_ascii=False).encode()
                except UnicodeEncodeError as error:
                    return f"line {number} has half a character, \\u{ord(error.object[error.start]):04x}"
                except UnicodeDecodeError as error:
                    return f"line {number} is not UTF-8: {error.reason}"
                except json.JSONDecodeError as error:
                    return f"line {number} is no JSON: {error.msg} at column {error.colno}: {error.doc[:80]!r}"
    except (OSError, EOFError) as error:
        return str(error)
    return None


def _root_cause(error: BaseException) -> str:
    """What the first of a chain of exceptions says: `datasets` wraps it in a sentence of its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def _fetch(uri: str, folder: str) -> str:
    """Copy a file or directory from any filesystem that pyarrow knows into `folder`; the path of the copy."""
    from pyarrow.fs import copy_files

    try:
        origin = location(uri)
        copy = os.path.join(folder, "data", origin.name)
        os.makedirs(copy if origin.is_dir() else os.path.dirname(copy))
        copy_files(origin.path, copy, source_filesystem=origin.filesystem)
    except (ValueError, OSError) as error:
        raise InputError(f"--data.dataset: cannot read {without_credentials(uri)!r}: {error}") from error
    return copy


def id_key(data: Dataset, settings: SourceSettings) -> str | None:
    """The column of the ids, None where rows are numbered."""
    return settings.id_key or (ID if ID in data.column_names else None)


def row_ids(data: Dataset, settings: SourceSettings) -> tuple[list[str], list[str]]:
    """One id a row, as text, and what is wrong with the ids.

    Args:
        data: rows as `load_source` has them.
        settings: name the column of the ids.

    Returns:
        The ids; and a sentence for each row that has none, or one that another row has, `ERRORS` of them at most.
    """
    key = id_key(data, settings)
    if key is None:
        return [str(number) for number in range(len(data))], []
    kind = data.features.arrow_schema.field(key).type
    ids: list[str] = []
    known: set[str] = set()
    problems: list[str] = []
    for number, value in enumerate(data[key]):
        try:
            ids.append(_row_id(value, kind, number, known))
            known.add(ids[-1])
        except InputError as error:
            ids.append(str(number))  # for what else is wrong with the row
            if len(problems) < ERRORS:
                problems.append(f"column {key!r}: {error}")
    return ids, problems


def _row_id(value: Any, kind: pa.DataType, number: int, others: Container[str]) -> str:
    """The id of one row as text.

    Raises:
        InputError: there is none, another row has it, or it has no text.
    """
    try:
        row_id = plain_text(value, kind)
    except InputError as error:
        raise InputError(f"row {number}: {error}") from error
    if row_id is None:
        raise InputError(f"row {number} has no id")
    if row_id in others:
        raise InputError(f"id {row_id!r} occurs more than once; ids must be unique")
    return row_id
