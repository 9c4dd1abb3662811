"""The finished rows on disk: Ray Data's files with their checkpoint, and the repair of both after a crash.

Ray Data writes a block as `checkpoint/BASE.pending.parquet` (ids), then `outcomes/BASE-0.parquet` (rows), and renames
the first to `checkpoint/BASE.parquet`. One rule repairs what a crash, a full disk or a cut file leaves:

- A data file with a footer is done, and gets a checkpoint that says so. All other rows are done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from openrlhf_cft.data.location import Location
from openrlhf_cft.data.parquet import whole_file
from openrlhf_cft.data.records import ID
from openrlhf_cft.data.source import NUMBER

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET, PENDING = ".parquet", ".pending.parquet"
READERS = 16  # threads; they mostly wait for the filesystem

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """One file of finished rows."""

    file: Location
    rows: int
    first: int  # the smallest number of a row in the source; `last` is the largest
    last: int


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of the source, and the outcomes of the finished ones."""

    source: pa.Table  # n rows of the prompts file
    done: dict[int, dict[str, Any]]  # the finished ones, by their position in `source`


@dataclass(frozen=True)
class Outcomes:
    """The directories of data and of checkpoints."""

    data: Location
    checkpoint: Location

    def repair(self) -> tuple[int, list[str]]:
        """Make data and checkpoint agree, and remove files that are cut. Do not call this while a job is running.

        Returns:
            The number of finished rows, and the names of the data files that were cut: their rows are done again.

        Raises:
            OSError: a file cannot be reached, so nothing is known about it; nothing is removed because of that.
        """
        saved = self.checkpoint.files(PARQUET)  # listed before the data, so that a checkpoint's data are listed too
        data = {file.name.rpartition("-")[0]: file for file in self.data.files(PARQUET)}
        committed = {file.name.removesuffix(PARQUET): file for file in saved if not file.name.endswith(PENDING)}
        parts = dict(zip(data, _concurrently(_part, data.values()), strict=True))
        ids = dict(zip(committed, _concurrently(_count, committed.values()), strict=True))
        for base, part in parts.items():
            if part is None:
                data[base].delete()
            elif ids.get(base) != part.rows:
                self._commit(part.file, self.checkpoint / f"{base}{PARQUET}")
        for file in saved:
            if file.name.endswith(PENDING) or parts.get(file.name.removesuffix(PARQUET)) is None:
                file.delete()
        cut = [data[base].name for base, part in parts.items() if part is None]
        return sum(part.rows for part in parts.values() if part), cut

    def _commit(self, file: Location, target: Location) -> None:
        """Write the checkpoint of a data file."""
        import pyarrow.parquet as pq

        self.checkpoint.make_dir()
        with pq.ParquetFile(file.path, filesystem=file.filesystem) as parquet:
            ids = parquet.read([ID])
        with whole_file(target, ids.schema) as writer:
            writer.write_table(ids)

    def rows(self, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """The finished rows, in no particular order."""
        for file in self.data.files(PARQUET):
            yield from file.rows(columns)

    def in_order(self, prompts: Location) -> Iterator[Batch]:
        """Every row of the source once, in its order, with its outcome if there is one.

        Only a few files are in memory at a time. A row may be in two files, if a driver that was believed dead still
        wrote; it counts once.
        """
        all_parts = _concurrently(_part, self.data.files(PARQUET))
        parts = sorted((part for part in all_parts if part), key=lambda part: part.first, reverse=True)
        ahead: dict[int, dict[str, Any]] = {}
        for record_batch in prompts.batches():
            source = _table(record_batch)
            numbers = source[NUMBER].to_pylist()
            while parts and parts[-1].first <= numbers[-1]:
                for row in parts.pop().file.rows():
                    ahead.setdefault(row[NUMBER], row)
            done = {index: ahead.pop(number) for index, number in enumerate(numbers) if number in ahead}
            yield Batch(source, done)


def _table(batch: pa.RecordBatch) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_batches([batch])


def _concurrently(function: Callable[[Location], T], files: Any) -> list[T]:
    """`function` of each file, in their order."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(function, files))


def _part(file: Location) -> Part | None:
    """The content of a data file, read from its footer; None if the file is cut."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        footer = pq.read_metadata(file.path, filesystem=file.filesystem)
    except pa.ArrowInvalid:  # no footer; a filesystem that fails raises OSError
        return None
    column = footer.schema.names.index(NUMBER)
    groups = [footer.row_group(i).column(column).statistics for i in range(footer.num_row_groups)]
    return Part(file, footer.num_rows, min(g.min for g in groups), max(g.max for g in groups))


def _count(file: Location) -> int | None:
    """The number of ids in a checkpoint file; None if the file is cut."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(file.path, filesystem=file.filesystem).num_rows)
    except pa.ArrowInvalid:
        return None
