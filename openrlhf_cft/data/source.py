"""Source rows to rendered prompts: any OpenRLHF-style data set to one Parquet file that the pipeline reads.

Data sets load as OpenRLHF's `blending_datasets` does (hub name, local directory, .json/.jsonl/.csv/.parquet), prompts
are rendered as its `PromptDataset` does. Neither is imported: `openrlhf.datasets` imports DeepSpeed, which a process
near vLLM must not.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openrlhf_cft.data.location import Location, location, without_credentials
from openrlhf_cft.data.parquet import whole_file
from openrlhf_cft.data.records import ANNOTATION_COLUMNS, ID, PROMPT, PROMPT_IDS
from openrlhf_cft.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

GOLD = "_gold"  # the gold answer as text
NUMBER = "_number"  # of the row in the source, from 0
GIVEN_IDS = "_given_token_ids"  # of a response that is given; the column is there only with `output_key`
TAKEN = (*ANNOTATION_COLUMNS, GOLD, NUMBER, GIVEN_IDS)
GROUP_ROWS = 1_000  # rows that are rendered, and written, at a time
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

    def __post_init__(self) -> None:
        if self.input_template is not None and "{}" not in self.input_template:
            raise InputError(f"--data.input_template: {self.input_template!r} has no {{}} for the question")
        if self.max_samples < 1:
            raise InputError(f"--data.max_samples: {self.max_samples} is not at least 1")


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
    extension = os.path.splitext(name)[-1].lower()
    if extension in FILE_TYPES and not os.path.exists(name):
        raise InputError(f"--data.dataset: no file {name!r}")
    try:
        if extension in FILE_TYPES:
            data = datasets.load_dataset(FILE_TYPES[extension], data_files=name, cache_dir=cache and cache.name)
        elif os.path.isdir(name) and os.path.exists(os.path.join(name, "state.json")):
            data = datasets.load_from_disk(name)
        else:
            data = datasets.load_dataset(name, data_dir=data_dir or None, cache_dir=cache and cache.name)
    except Exception as error:  # datasets raises many types for a bad path, a bad file, an unreachable hub
        raise InputError(f"--data.dataset: cannot load {name!r}: {error}") from error
    if isinstance(data, dict):
        if settings.dataset_split not in data:
            raise InputError(f"--data.dataset_split: {settings.dataset_split!r} is not in {sorted(data)} of {name!r}")
        data = data[settings.dataset_split]
    if len(data) == 0:
        raise InputError(f"--data.dataset: {name!r} has no rows")
    for flag in ("input_key", "label_key", "output_key"):
        column = getattr(settings, flag)
        if column is not None and column not in data.column_names:
            raise InputError(f"--data.{flag}: no column {column!r} in {name!r}, which has {data.column_names}")
    return data


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


def _id_key(data: Dataset, settings: SourceSettings) -> str | None:
    """The column of the ids, None where rows are numbered."""
    return settings.id_key or (ID if ID in data.column_names else None)


def row_ids(data: Dataset, settings: SourceSettings) -> list[str]:
    """One id a row, as text.

    Raises:
        InputError: a duplicate id, or a missing id column; the message names it.
    """
    key = _id_key(data, settings)
    if key is None:
        return [str(number) for number in range(len(data))]
    if key not in data.column_names:
        raise InputError(f"--data.id_key: no column {key!r}, only {data.column_names}")
    ids = [str(value) for value in data[key]]
    seen: set[str] = set()
    for value in ids:
        if value in seen:
            raise InputError(f"column {key!r}: id {value!r} occurs more than once; ids must be unique")
        seen.add(value)
    return ids


def render_prompt(value: Any, tokenizer: PreTrainedTokenizerBase, settings: SourceSettings) -> str:
    """One source value to the prompt text, as OpenRLHF's `preprocess_data` (openrlhf/datasets/prompts_dataset.py).

    Raises:
        InputError: a list of messages without `--data.apply_chat_template`.
    """
    if settings.apply_chat_template:
        messages = [{"role": "user", "content": value}] if isinstance(value, str) else value
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    if not isinstance(value, str):
        raise InputError(f"{value!r:.80} is no text: a list of messages needs --data.apply_chat_template")
    return settings.input_template.format(value) if settings.input_template else value


def is_token_ids(value: Any) -> bool:
    """Whether a column's value is a list of token ids, as in rows that were annotated before."""
    return isinstance(value, list) and bool(value) and all(isinstance(i, int) for i in value)


def response_ids(
    value: Any, question: Any, prompt: str, tokenizer: PreTrainedTokenizerBase, settings: SourceSettings
) -> list[int]:
    """A given response as token ids: ids as they are, text as OpenRLHF's SFT data set renders it, with EOS behind it.

    Source of the rendering: `preprocess_data` of openrlhf/datasets/sft_dataset.py, less the space that it puts before
    EOS where there is no chat template: models do not write it. Prompt and response are tokenized together, as there,
    unless that changes the prompt's own tokens: then apart.

    Raises:
        InputError: the value is no text, no messages and no list of ids, or empty; an id that the tokenizer does not
            have; something behind the first EOS; a text to a prompt of token ids.
    """
    ids = value if is_token_ids(value) else _text_ids(value, question, prompt, tokenizer, settings)
    for position, token_id in enumerate(ids):
        if not 0 <= token_id < len(tokenizer):
            raise InputError(f"token id {token_id} at position {position}: the tokenizer has {len(tokenizer)}")
        if token_id == tokenizer.eos_token_id and position < len(ids) - 1:
            raise InputError(f"EOS is at position {position} of {len(ids)}, and a response ends with its first one")
    return ids


def _text_ids(
    value: Any, question: Any, prompt: str, tokenizer: PreTrainedTokenizerBase, settings: SourceSettings
) -> list[int]:
    """A response that is given as text or messages, as token ids that end with EOS."""
    if is_token_ids(question):
        raise InputError("the prompt is a list of token ids, so the response has to be one too")
    if tokenizer.eos_token is None:
        raise InputError("the tokenizer has no EOS token, which ends a response: give token ids")
    if settings.apply_chat_template and value:
        before = [{"role": "user", "content": question}] if isinstance(question, str) else question
        after = [{"role": "assistant", "content": value}] if isinstance(value, str) else value
        whole = str(tokenizer.apply_chat_template(before + after, tokenize=False))
        if not whole.startswith(prompt):
            raise InputError("the chat template renders the prompt otherwise when a response follows: give token ids")
        value = whole[len(prompt) :]
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{value!r:.80} is no response")
    text = value.rstrip("\n").removesuffix(str(tokenizer.eos_token))
    alone, both = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prompt, prompt + text))
    if both[: len(alone)] == alone:
        return [*both[len(alone) :], tokenizer.eos_token_id]
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def _types() -> dict[str, Any]:
    """The Arrow types of the columns that rendering adds, by name."""
    import pyarrow as pa

    ids, text = pa.list_(pa.int32()), pa.string()
    return {ID: text, NUMBER: pa.int64(), GOLD: text, PROMPT: text, PROMPT_IDS: ids, GIVEN_IDS: ids}


def _rendered(
    data: Dataset, first: int, last: int, tokenizer: PreTrainedTokenizerBase, settings: SourceSettings, ids: list[str]
) -> dict[str, list[Any]]:
    """The columns that are added to the rows from `first` to before `last`."""
    keys = [settings.input_key, settings.label_key, settings.output_key]
    needed = data.select_columns(sorted({key for key in keys if key is not None}))[first:last]
    added: dict[str, list[Any]] = {name: [] for name in (ID, NUMBER, GOLD, PROMPT, PROMPT_IDS)}
    if settings.output_key is not None:
        added[GIVEN_IDS] = []
    for number in range(first, last):
        row = {key: values[number - first] for key, values in needed.items()}
        for name, value in _rendered_row(row, number, ids[number], tokenizer, settings).items():
            added[name].append(value)
    return added


def _rendered_row(
    row: dict[str, Any], number: int, row_id: str, tokenizer: PreTrainedTokenizerBase, settings: SourceSettings
) -> dict[str, Any]:
    """What is added to one row."""
    question = row[settings.input_key]
    if is_token_ids(question):
        prompt_ids, prompt = question, str(tokenizer.decode(question))  # of rows that were annotated before
    else:
        prompt = render_prompt(question, tokenizer, settings)
        prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if not prompt_ids:
        raise InputError(f"row {row_id!r}: the prompt in column {settings.input_key!r} is empty")
    if row[settings.label_key] is None:
        raise InputError(f"row {row_id!r}: no gold answer in column {settings.label_key!r}")
    gold = str(row[settings.label_key])
    added = {ID: row_id, NUMBER: number, GOLD: gold, PROMPT: prompt, PROMPT_IDS: prompt_ids}
    if settings.output_key is not None:
        try:
            added[GIVEN_IDS] = response_ids(row[settings.output_key], question, prompt, tokenizer, settings)
        except InputError as error:
            raise InputError(f"row {row_id!r}: column {settings.output_key!r}: {error}") from None
    return added


def write_prompts(data: Dataset, tokenizer: PreTrainedTokenizerBase, settings: SourceSettings, path: Location) -> str:
    """Render all rows into one Parquet file: whole or absent, a row group of `GROUP_ROWS` rows in memory at a time.

    The source's own columns come first, as they are; one whose name annotation needs becomes `source_NAME`.

    Returns:
        A fingerprint of ids, prompts and gold answers: equal for equal work.

    Raises:
        InputError: names the row that cannot be rendered.
    """
    import pyarrow as pa

    digest = hashlib.sha256()
    ids = row_ids(data, settings)
    own = data.remove_columns([ID]) if _id_key(data, settings) == ID else data
    # Of rows that were annotated twice before there is a source_NAME already, which gives way to the newer one.
    own = own.remove_columns(
        [f"source_{n}" for n in own.column_names if n in TAKEN and f"source_{n}" in own.column_names]
    )
    names = [f"source_{name}" if name in TAKEN else name for name in own.column_names]
    source, types = own.with_format("arrow"), _types()
    with ExitStack() as stack:
        writer = None
        for first in range(0, len(data), GROUP_ROWS):
            last = min(first + GROUP_ROWS, len(data))
            added = _rendered(data, first, last, tokenizer, settings, ids)
            table = source[first:last].rename_columns(names).replace_schema_metadata(None)
            for name, values in added.items():
                table = table.append_column(name, pa.array(values, types[name]))
            given = [added[GIVEN_IDS]] if GIVEN_IDS in added else []
            for row in zip(added[ID], added[PROMPT_IDS], added[GOLD], *given, strict=True):
                digest.update(repr(row).encode())
            writer = writer or stack.enter_context(whole_file(path, table.schema))
            writer.write_table(table)
    return digest.hexdigest()[:16]
