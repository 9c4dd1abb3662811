"""The rows of a table, by what is trained of each. A blend of data sets may hold annotated rows and others.

A row is *annotated* if it has weights. `--cft.missing` (see `arguments`) decides about all others: they are refused,
dropped, or trained on all their response tokens. These come from the stored ids or, without stored ids, from the text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openrlhf_cft.data import records
from openrlhf_cft.train.row_checks import count_tokens

ANNOTATED, STORED, TEXT, DROPPED = range(4)


@dataclass(frozen=True)
class RowCounts:
    """Kinds and token counts of the rows of one table, after they are cut to `max_length`. R is the axis of rows."""

    kind_R: np.ndarray  # (R,) int64, one of the four above
    trained_R: np.ndarray  # (R,) int64, response tokens with a weight; 0 for text, which is not tokenized yet
    response_R: np.ndarray  # (R,) int64, response tokens; 0 for text
    largest_id: int  # of all token ids, -1 where there are none


def count_rows(table: pa.Table, column: str, max_length: int, missing: str, first_row: int = 0) -> RowCounts:
    """Check every row of a table and count its tokens.

    Args:
        table: R rows with the columns of `row_checks.columns_to_read`, as far as they exist.
        column: the column of the weights.
        max_length: each sequence is cut to this many tokens.
        missing: how to treat a row without weights (see `arguments`).
        first_row: number of the first row; if there is no `id`, messages name a row by its number.

    Raises:
        InputError: as `row_checks.count_tokens`.
    """
    if records.ID not in table.column_names:
        table = table.append_column(records.ID, pa.array(range(first_row, first_row + len(table)), pa.int64()))
    kind_R = row_kinds(table, column, missing)
    trained_R: np.ndarray = np.zeros(len(table), np.int64)
    response_R: np.ndarray = np.zeros(len(table), np.int64)
    largest_id = -1
    for kind in (ANNOTATED, STORED):
        of_kind_R = kind_R == kind
        if not of_kind_R.any():
            continue
        part = table.filter(pa.array(of_kind_R))
        counts = count_tokens(all_trained(part, column) if kind == STORED else part, column, max_length)
        trained_R[of_kind_R], response_R[of_kind_R] = counts.trained_R, counts.response_R
        largest_id = max(largest_id, counts.largest_id)
    return RowCounts(kind_R, trained_R, response_R, largest_id)


def row_kinds(table: pa.Table, column: str, missing: str) -> np.ndarray:
    """(R,) int64: the kind of each row of a table."""
    if missing == "error":
        return np.full(len(table), ANNOTATED)  # `count_tokens` then refuses a row without weights
    without_R = _null(table, column)
    if missing == "drop":
        return np.where(without_R, DROPPED, ANNOTATED)
    text_R = _null(table, records.PROMPT_IDS) | _null(table, records.RESPONSE_IDS)
    return np.where(without_R, np.where(text_R, TEXT, STORED), ANNOTATED)


def _null(table: pa.Table, name: str) -> np.ndarray:
    """(R,) bool: whether a row has no value."""
    if name not in table.column_names:
        return np.ones(len(table), dtype=bool)
    return pc.is_null(table.column(name)).to_numpy()


def all_trained(table: pa.Table, column: str) -> pa.Table:
    """Rows with stored ids but without weights, as rows with the weight 1 for each response token."""
    lengths_R = pc.list_value_length(table.column(records.RESPONSE_IDS)).to_pylist()
    ones = pa.array([[1.0] * length for length in lengths_R], pa.list_(pa.float32()))
    others = table.drop_columns([column]) if column in table.column_names else table
    return others.append_column(column, ones)
