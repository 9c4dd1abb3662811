"""Checks on annotated rows, one table at a time, so that a bad row is found before a model loads, not in epoch two.

The fast path is arithmetic on whole columns; only a table with a fault is read row by row, to name the row.
`preflight` checks local Parquet files, `CriticalTokenDataset` checks all rows that OpenRLHF has loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openrlhf_cft.data import records
from openrlhf_cft.errors import InputError

ROWS_AT_ONCE = 1024  # large enough for column arithmetic, small in memory


@dataclass(frozen=True)
class Counts:
    """Token counts of the rows of one table, after they are cut to `max_length`. R is the axis of rows."""

    trained_R: np.ndarray  # (R,) int64, response tokens with a weight that is not zero in float32
    response_R: np.ndarray  # (R,) int64, response tokens
    largest_id: int  # of all token ids, -1 where there are none


def refuse_pretraining(pretrain_mode: bool) -> None:
    """Refuse the stock mode that has no meaning for annotated rows.

    Raises:
        InputError: names the flag.
    """
    if pretrain_mode:
        raise InputError("--model.pretrain_mode_enable cannot be combined with --critical_mask: it has no response")


def no_trained_token(source: str, rows: int, column: str, max_length: int) -> str:
    """The sentence for a data set on which nothing would be trained."""
    return (
        f"{source} has no token to train: none of its {rows} rows has a weight above 0 in column {column!r} "
        f"within --data.max_len {max_length}"
    )


def require_columns(names: Sequence[str], column: str, source: str, missing: str = "error") -> None:
    """Refuse rows that lack a column, unless `missing` (see `arguments`) says how to treat them.

    Raises:
        InputError: names the column, the data set `source`, and the columns that exist.
    """
    if missing != "error" and column not in names:
        return
    for name in (column, records.PROMPT_IDS, records.RESPONSE_IDS):
        if name not in names:
            raise InputError(f"{source} has no column {name!r}; its columns are {', '.join(sorted(names))}")


def refuse_beyond(source: str, largest_id: int, vocab_size: int | None) -> None:
    """Refuse token ids for which the model has no embedding.

    Args:
        source: the data set, for the message.
        largest_id: of all its token ids.
        vocab_size: rows of the model's embeddings, which may be more than the tokenizer has tokens; None: not known.

    Raises:
        InputError: names the id and the size.
    """
    if vocab_size is not None and largest_id >= vocab_size:
        raise InputError(
            f"{source} has token id {largest_id}, outside the model's vocabulary of {vocab_size}: it was probably "
            f"annotated with another model"
        )


def columns_to_read(names: Sequence[str], column: str) -> list[str]:
    """The columns that `count_tokens` reads: the ids, the mask, and the row's name if there is one."""
    return [name for name in (records.ID, records.PROMPT_IDS, records.RESPONSE_IDS, column) if name in names]


def count_tokens(table: pa.Table, column: str, max_length: int) -> Counts:
    """Check every row of a table and count its tokens.

    Args:
        table: R rows with the columns of `columns_to_read` and an `id`.
        column: the column of weights.
        max_length: each sequence is cut to this many tokens.

    Raises:
        InputError: a row has no prompt or no weights, too many or too few weights, or a weight that is not a finite
            number >= 0 in float32; or a column does not hold lists of numbers.
    """
    prompt_R, prompt_ids = _lists(table, records.PROMPT_IDS, integers=True)
    response_R, response_ids = _lists(table, records.RESPONSE_IDS, integers=True)
    weights_R, weights = _lists(table, column, integers=False)
    ids = np.concatenate([prompt_ids, response_ids])
    lengths_fit = (prompt_R >= 1).all() and (response_R >= 0).all() and (weights_R == response_R).all()
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is checked below
        weights = weights.astype(np.float32)
    if not (lengths_fit and np.isfinite(weights).all() and (weights >= 0).all() and (ids >= 0).all()):
        _raise_for_first(table, column)
    kept_R = np.clip(max_length - prompt_R, 0, response_R)
    starts_R = np.concatenate([[0], np.cumsum(response_R)[:-1]]).astype(np.int64)[: len(kept_R)]
    seen = np.concatenate([[0], np.cumsum(weights != 0)])
    return Counts(seen[starts_R + kept_R] - seen[starts_R], kept_R, int(ids.max(initial=-1)))


def _lists(table: pa.Table, name: str, integers: bool) -> tuple[np.ndarray, np.ndarray]:
    """A column of lists: the lengths, (R,), -1 for null, and all rows' values in sequence, NaN or -1 for null."""
    kind = table.schema.field(name).type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    is_number = is_list and (
        pa.types.is_integer(kind.value_type)
        or (not integers and (pa.types.is_floating(kind.value_type) or pa.types.is_boolean(kind.value_type)))
    )
    empty = is_list and pa.types.is_null(kind.value_type)  # nothing but empty lists
    if not (is_number or empty):
        raise InputError(f"column {name!r} holds {kind}, not a list of {'token ids' if integers else 'numbers'}")
    lengths: list[np.ndarray] = [np.zeros(0, np.int64)]
    chunks: list[np.ndarray] = [np.zeros(0, np.int64 if integers else np.float64)]
    for chunk in table.column(name).chunks:
        lengths.append(pc.fill_null(pc.cast(pc.list_value_length(chunk), pa.int64()), -1).to_numpy(False))
        if integers:
            values = pc.fill_null(pc.cast(chunk.flatten(), pa.int64()), -1).to_numpy(False)
        else:
            values = pc.cast(pc.cast(chunk.flatten(), pa.float32(), safe=False), pa.float64()).to_numpy(False)
        chunks.append(values)
    return np.concatenate(lengths), np.concatenate(chunks)


def _raise_for_first(table: pa.Table, column: str) -> None:
    """Read row by row up to the fault that the fast path has found, and raise an error that names it."""
    for row in _rows(table):
        row_id = row[records.ID]
        prompt, response, weights = row[records.PROMPT_IDS], row[records.RESPONSE_IDS], row[column]
        if not prompt:
            raise InputError(f"row {row_id!r} has no {records.PROMPT_IDS}: nothing predicts its first response token")
        if response is None:
            raise InputError(f"row {row_id!r} has no {records.RESPONSE_IDS}")
        if weights is None:
            raise InputError(
                f"row {row_id!r} has no value in column {column!r} "
                f"(--cft.missing train trains all its response tokens, --cft.missing drop leaves it out)"
            )
        if any(token is None or token < 0 for token in [*prompt, *response]):
            raise InputError(f"row {row_id!r} has a token id that is missing or negative")
        records.check_weights(row_id, _float32(weights), response, column)
    raise AssertionError("the fast path saw a fault that the row by row check does not")


def _rows(table: pa.Table) -> Iterable[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=256):
        yield from batch.to_pylist()


def _float32(weights: list[float]) -> list[float]:
    """Weights as training sees them, so that a weight beyond float32 is reported as infinite."""
    with np.errstate(over="ignore"):
        return [weight if weight is None else float(np.float32(weight)) for weight in weights]
