"""`masks sample`: take random rows of an annotated data set, with all columns unchanged, in the data set's order.

A hash of a row's id and the seed decides whether the row is taken. So the choice does not depend on the order of the
rows or on how they are spread over files, and a larger sample contains the smaller one.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrlhf_cft.data.annotated import AnnotatedData, Row, with_record, write
from openrlhf_cft.data.location import Location
from openrlhf_cft.data.provenance import versions
from openrlhf_cft.data.records import ID, MASK, check_weights
from openrlhf_cft.data.records import RESPONSE_IDS as IDS
from openrlhf_cft.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class SampleSettings:
    """Which rows, and how many."""

    rows: int
    seed: int = 42
    min_share: float = 0.0  # share of critical tokens (weight > 0) in the response; both limits are included
    max_share: float = 1.0
    column: str = MASK


def sample(data: AnnotatedData, settings: SampleSettings, out: Location) -> int:
    """Write the sample to `out`.

    Returns:
        The number of rows that the sample was chosen from.

    Raises:
        InputError: fewer rows qualify than are asked for, or a row's weights do not fit its tokens.
    """
    data.require_weights(settings.column)
    chosen, qualified = _choose(data, settings)
    record = {**vars(settings), "qualified": qualified, "from": data.name, "versions": versions()}
    write(out, with_record(data.schema, "sampled", record), _taken(data, chosen))
    return qualified


def critical_share(row: Row, column: str) -> float:
    """The share of response tokens whose weight is above 0; 0 for a response without tokens."""
    check_weights(row[ID], row[column], row[IDS], column)
    return sum(weight > 0 for weight in row[column]) / max(1, len(row[column]))


def _choose(data: AnnotatedData, settings: SampleSettings) -> tuple[set[int], int]:
    """The numbers of the rows to take, and how many rows qualified. Only the numbers to take are in memory."""
    qualified = 0

    def ranked() -> Iterator[tuple[bytes, int]]:
        nonlocal qualified
        for number, row in enumerate(data.rows([ID, IDS, settings.column])):
            if settings.min_share <= critical_share(row, settings.column) <= settings.max_share:
                qualified += 1
                yield hashlib.sha256(f"{settings.seed}\0{row[ID]}".encode()).digest(), number

    chosen = {number for _, number in heapq.nsmallest(settings.rows, ranked())}
    if len(chosen) < settings.rows:
        raise InputError(f"--rows: {settings.rows} is more than the {qualified} rows that qualify")
    return chosen, qualified


def _taken(data: AnnotatedData, chosen: set[int]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    first = 0
    for batch in data.batches():
        kept = [index for index in range(batch.num_rows) if first + index in chosen]
        first += batch.num_rows
        if kept:
            yield batch.take(pa.array(kept))
