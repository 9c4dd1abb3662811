"""Render source rows into one Parquet file of prompts, which the pipeline reads."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openrlhf_cft.data.literal_text import LiteralText
from openrlhf_cft.data.location import Location
from openrlhf_cft.data.parquet import whole_file
from openrlhf_cft.data.plain_text import plain_text
from openrlhf_cft.data.records import ID, PROMPT, PROMPT_IDS
from openrlhf_cft.data.rendering import (
    ResponseChanged,
    check_ids,
    is_token_ids,
    prompt_token_ids,
    render_prompt,
    response_ids,
)
from openrlhf_cft.data.source import ERRORS, GIVEN_IDS, GOLD, NUMBER, TAKEN, SourceSettings, id_key, row_ids
from openrlhf_cft.errors import InputError, listed

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

GROUP_ROWS = 1_000  # rows that are rendered, and written, at a time


@dataclass(frozen=True)
class RowRenderer:
    """Computes the columns that are added to each row of a source."""

    text: LiteralText
    settings: SourceSettings
    stops: frozenset[int]
    label_type: pa.DataType  # of the column of gold answers
    changed: list[str] = field(default_factory=list)  # per row: what the chat template lost of its given response

    @property
    def columns(self) -> list[str]:
        """The names of the added columns, without the row's id and number."""
        return [GOLD, PROMPT, PROMPT_IDS, *([] if self.settings.output_key is None else [GIVEN_IDS])]

    def render(self, row_id: str, row: dict[str, Any]) -> dict[str, Any]:
        """The values that are added to one row.

        Raises:
            InputError: names the column and what is wrong with its value.
        """
        settings, text = self.settings, self.text
        question = row[settings.input_key]
        with _named(settings.input_key):
            if is_token_ids(question):  # as in rows that were annotated before
                check_ids(question, text.tokenizer)
                prompt_ids, prompt = question, str(text.tokenizer.decode(question))
            else:
                prompt = render_prompt(question, text, settings)
                prompt_ids = prompt_token_ids(prompt, text, settings.add_bos)
            if not prompt_ids:
                raise InputError("the prompt is empty")
        with _named(settings.label_key):
            gold = plain_text(row[settings.label_key], self.label_type)
            if gold is None:
                raise InputError("no gold answer")
        added = {GOLD: gold, PROMPT: text.show(prompt), PROMPT_IDS: prompt_ids}
        if settings.output_key is not None:
            with _named(settings.output_key):
                given = row[settings.output_key]
                try:
                    added[GIVEN_IDS] = response_ids(given, question, prompt, text, settings, self.stops)
                except ResponseChanged as error:  # other rows' responses may be unchanged
                    added[GIVEN_IDS] = None
                    self.changed.append(f"row {row_id!r}: column {settings.output_key!r}: {error}")
        return added


@contextmanager
def _named(column: str) -> Iterator[None]:
    """Put the column's name before the message of an `InputError` about its value."""
    try:
        yield
    except InputError as error:
        raise InputError(f"column {column!r}: {error}") from error


def _types() -> dict[str, Any]:
    """The Arrow types of the columns that rendering adds, by name."""
    import pyarrow as pa

    ids, text = pa.list_(pa.int32()), pa.string()
    return {ID: text, NUMBER: pa.int64(), GOLD: text, PROMPT: text, PROMPT_IDS: ids, GIVEN_IDS: ids}


def _columns(data: Dataset, first: int, last: int, ids: list[str]) -> dict[str, list[Any]]:
    """The values of some rows.

    Raises:
        InputError: a text is not UTF-8, which Arrow does not check; names the row.
    """
    try:
        return dict(data[first:last])
    except UnicodeDecodeError:
        for number in range(first, last):
            try:
                data[number]
            except UnicodeDecodeError as error:
                raise InputError(f"row {ids[number]!r}: a text is not UTF-8: {error.object[:80]!r}") from error
        raise


def _rendered(
    data: Dataset, first: int, last: int, renderer: RowRenderer, ids: list[str], problems: list[str]
) -> dict[str, list[Any]]:
    """The columns that are added to the rows from `first` up to, but without, `last`.

    Args:
        data, renderer, ids: all rows, how to render one, and the ids of all.
        first, last: which rows.
        problems: known problems of the ids.

    Raises:
        InputError: there are problems, or rows that cannot be rendered; names up to `ERRORS` of both together.
    """
    settings, problems = renderer.settings, list(problems)
    keys = {settings.input_key, settings.label_key, settings.output_key} - {None}
    needed = _columns(data.select_columns(sorted(map(str, keys))), first, last, ids)
    if settings.special_tokens == "auto" and settings.rendered_before:
        _refuse_rendered(needed[settings.input_key], renderer.text)
    added: dict[str, list[Any]] = {name: [] for name in renderer.columns}
    for index in range(last - first):
        if len(problems) == ERRORS:
            break
        try:
            rendered = renderer.render(ids[first + index], {key: values[index] for key, values in needed.items()})
        except InputError as error:
            problems.append(f"row {ids[first + index]!r}: {error}")
        else:
            for name, value in rendered.items():
                added[name].append(value)
    if problems:
        raise listed(f"{len(problems)} values cannot be used:", problems)
    return {ID: ids[first:last], NUMBER: list(range(first, last)), **added}


def _refuse_rendered(values: list[Any], text: LiteralText) -> None:
    """Refuse to guess if most prompts have special tokens and no template is set: somebody may have rendered them.

    Raises:
        InputError: shows one of these prompts.
    """
    rendered = [value for value in values if isinstance(value, str) and text.has_special(value)]
    if len(rendered) > len(values) / 2:
        raise InputError(
            f"{len(rendered)} of {len(values)} prompts have special tokens, such as {rendered[0]!r:.80}: say "
            "--data.special_tokens control if they are rendered already, or text if these are a user's words"
        )


def _report_changed(renderer: RowRenderer, rows: int) -> None:
    """Log how many given responses the chat template changes, and what it lost of the first one.

    Raises:
        InputError: it changes all of them, so nothing would be annotated.
    """
    if not renderer.changed:
        return
    if len(renderer.changed) == rows:
        raise InputError(f"none of {rows} given responses can be used; the first: {renderer.changed[0]}")
    logger.warning("%d of %d rows are left out; the first: %s", len(renderer.changed), rows, renderer.changed[0])


def write_prompts(
    data: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    settings: SourceSettings,
    path: Location,
    stops: frozenset[int],
) -> str:
    """Render all rows into one Parquet file, which is whole or absent. `GROUP_ROWS` rows are in memory at a time.

    The source's own columns come first, unchanged. A column whose name the annotation needs becomes `source_NAME`.

    Args:
        data: the rows, as `load_source` returns them.
        tokenizer: of the model.
        settings: how to render.
        path: of the file.
        stops: the tokens that end a response, see `stop_token_ids`.

    Returns:
        A fingerprint of ids, prompts, gold answers and given responses: equal for equal work.

    Raises:
        InputError: ids are missing or not unique, or rows cannot be rendered; names up to `ERRORS` of both together.
            Or the chat template changes every given response. If it changes only some, these rows get no response
            token ids, and a warning says so.
    """
    import pyarrow as pa

    digest = hashlib.sha256()
    text = LiteralText(tokenizer, settings.literal)
    ids, problems = row_ids(data, settings)
    renderer = RowRenderer(text, settings, stops, data.features.arrow_schema.field(settings.label_key).type)
    own = data.remove_columns([ID]) if id_key(data, settings) == ID else data
    # Rows that were annotated twice already have a source_NAME column. The newer one replaces it.
    own = own.remove_columns(
        [f"source_{n}" for n in own.column_names if n in TAKEN and f"source_{n}" in own.column_names]
    )
    names = [f"source_{name}" if name in TAKEN else name for name in own.column_names]
    source, types = own.with_format("arrow"), _types()
    with ExitStack() as stack:
        writer = None
        for first in range(0, len(data), GROUP_ROWS):
            last = min(first + GROUP_ROWS, len(data))
            added = _rendered(data, first, last, renderer, ids, problems)
            table = source[first:last].rename_columns(names).replace_schema_metadata(None)
            for name, values in added.items():
                table = table.append_column(name, pa.array(values, types[name]))
            given = [added[GIVEN_IDS]] if GIVEN_IDS in added else []
            for row in zip(added[ID], added[PROMPT_IDS], added[GOLD], *given, strict=True):
                digest.update(repr(row).encode())
            writer = writer or stack.enter_context(whole_file(path, table.schema))
            writer.write_table(table)
        _report_changed(renderer, len(data))
    return digest.hexdigest()[:16]
