"""The rows to work on: any OpenRLHF-style data set, and the id of each of its rows.

Data sets load as in OpenRLHF's `blending_datasets` (hub name, local directory, .json/.jsonl/.csv/.parquet). It is not
imported, because `openrlhf.datasets` imports DeepSpeed, which must not happen in a process near vLLM.
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
NUMBER = "_number"  # the row's number in the source, from 0
GIVEN_IDS = "_given_token_ids"  # token ids of a given response; only with `output_key`
TAKEN = (*ANNOTATION_COLUMNS, GOLD, NUMBER, GIVEN_IDS)
MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "<NA>", "#N/A"]  # null in other CSV columns
ADD_BOS = ("auto", "never")
ERRORS = 10  # rows that one message names at most
COMPRESSED = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
FILE_TYPES = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}


@dataclass(frozen=True)
class SourceSettings:
    """Where the rows are, and how one becomes a prompt. The names are those of OpenRLHF's `--data.*` flags."""

    dataset: str  # one, or several separated by commas
    dataset_split: str = "train"
    input_key: str = "input"
    label_key: str = "label"
    output_key: str | None = None  # column of given responses to annotate; None: the model writes its own
    id_key: str | None = None  # None: the column `id` when there is one, else the row number
    apply_chat_template: bool = False
    input_template: str | None = None
    max_samples: int = 1_000_000
    add_bos: str = "auto"  # before a prompt, if the tokenizer adds it before a text by itself; or "never"
    special_tokens: str = "auto"  # those written in a question or response: "text" or "control" tokens

    @property
    def literal(self) -> bool:
        """Whether special tokens that are written in a question or response stay text."""
        return self.special_tokens != "control"

    @property
    def rendered_before(self) -> bool:
        """Whether the input already is the prompt: no template is set."""
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
    """Load the source rows. Several data sets, `a,b`, follow each other; a column that one lacks is null there.

    Raises:
        InputError: there is nothing to load at `settings.dataset`, no row, or a missing column, or the columns of
            several data sets do not fit together; the message names it.
    """
    import datasets

    names = [name.strip() for name in settings.dataset.split(",")]
    sources = [_load_one(name, settings) for name in names]
    try:
        data = sources[0] if len(sources) == 1 else datasets.concatenate_datasets(sources)
    except Exception as error:  # one column has several types; datasets raises several exceptions for it
        raise InputError(f"--data.dataset: {settings.dataset!r} cannot be read as one: {error}") from error
    return data.select(range(min(settings.max_samples, len(data))))


def _load_one(dataset: str, settings: SourceSettings) -> Dataset:
    """Load the rows of one data set, and check that it has the columns that the settings name."""
    import datasets

    cache = None
    if "://" in dataset:
        cache = tempfile.TemporaryDirectory(prefix="openrlhf_cft.")
        atexit.register(cache.cleanup)  # the data set stays memory-mapped from there
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
    """All problems of the columns that the settings name, so that one run reports everything that has to change."""
    columns = {flag: getattr(settings, flag) for flag in ("input_key", "label_key", "output_key")}
    for flag, column in {**columns, "id_key": id_key(data, settings)}.items():
        if column is not None and column not in data.column_names:
            yield f"--data.{flag}: no column {column!r} in {name!r}, which has {data.column_names}"
        elif flag in ("label_key", "id_key") and column is not None:
            problem = text_type(data.features.arrow_schema.field(column).type)
            if problem is not None:
                yield f"--data.{flag}: column {column!r} holds {problem}; give text or numbers"


def _file_extension(name: str) -> str:
    """The extension of a file's format, without that of its compression: `.jsonl` for `rows.jsonl.gz`."""
    base, extension = os.path.splitext(name.lower())
    return os.path.splitext(base)[-1] if extension in COMPRESSED else extension


def _csv_options(name: str, settings: SourceSettings) -> dict[str, Any]:
    """How pandas reads a CSV file: the columns that are used keep their text, such as 007, None or 1.50."""
    named = {settings.input_key, settings.label_key, settings.output_key, settings.id_key or ID} - {None}
    with _opener(name)(name, "rt", encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    missing = {column: MISSING for column in header if column not in named}
    return {"converters": dict.fromkeys(named, str), "keep_default_na": False, "na_values": missing}


def _opener(name: str) -> Any:
    """The function that opens a file, compressed or not."""
    return COMPRESSED.get(os.path.splitext(name.lower())[1], open)


def _json_problem(name: str) -> str | None:
    """The first invalid line of a JSON Lines file: its number and what is wrong with it. None if all are valid."""
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
    """The message of the first exception in a chain: `datasets` wraps it in a sentence of its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def _fetch(uri: str, folder: str) -> str:
    """Copy a file or directory from any filesystem that pyarrow knows into `folder`. Returns the path of the copy."""
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
    """The column of the ids; None if rows are numbered."""
    return settings.id_key or (ID if ID in data.column_names else None)


def row_ids(data: Dataset, settings: SourceSettings) -> tuple[list[str], list[str]]:
    """One id per row, as text, and the problems of the ids.

    Args:
        data: rows as `load_source` returns them.
        settings: name the column of the ids.

    Returns:
        The ids, and a sentence for each row that has no id or the id of another row; at most `ERRORS` sentences.
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
            ids.append(str(number))  # to name the row in messages about other problems
            if len(problems) < ERRORS:
                problems.append(f"column {key!r}: {error}")
    return ids, problems


def _row_id(value: Any, kind: pa.DataType, number: int, others: Container[str]) -> str:
    """The id of one row as text.

    Raises:
        InputError: the row has no id, another row has the same one, or the value has no text form.
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
