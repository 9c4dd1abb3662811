"""Parquet files, written whole or not at all.

with whole_file(location("out/samples.parquet"), schema) as writer:
    writer.write_table(table)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from openrlhf_cft.data.location import Location, named_if_full

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROWS_PER_FILE = 50_000


@contextmanager
def whole_file(target: Location, schema: pa.Schema, partial: Location | None = None) -> Iterator[pq.ParquetWriter]:
    """A writer of one file. The file appears only if the block ends without an error.

    Args:
        target: the file.
        schema: of what is written, with the file metadata to store.
        partial: where the file is written first; by default beside the target. Object stores do not need it.
    """
    import pyarrow.parquet as pq

    place = partial if partial is not None and target.is_local else target.partial()
    try:
        with named_if_full(target), pq.ParquetWriter(place.path, schema, filesystem=place.filesystem) as writer:
            yield writer
    except BaseException:
        with suppress(OSError):
            place.delete()  # it is closed, so on an object store it would look whole
        raise
    place.move(target)


class PartFiles:
    """A writer of files with `ROWS_PER_FILE` rows each, or of one file without rows. Each file is whole or absent.

    Args:
        schema: as in `whole_file`.
        name: maps the number of a file to its location.
        partial: as in `whole_file`.
    """

    def __init__(self, schema: pa.Schema, name: Callable[[int], Location], partial: Location | None = None) -> None:
        self.schema = schema
        self.files: list[Location] = []  # the complete ones
        self.rows = 0
        self._name, self._partial = name, partial
        self._block: Any = None  # of `whole_file`
        self._writer: pq.ParquetWriter | None = None
        self._in_file = 0

    def write(self, table: pa.Table | pa.RecordBatch) -> None:
        """Add some rows."""
        if self._writer is None:
            self._block = whole_file(self._name(len(self.files)), self.schema, self._partial)
            self._writer = self._block.__enter__()
        self._writer.write(table)
        self.rows, self._in_file = self.rows + table.num_rows, self._in_file + table.num_rows
        if self._in_file >= ROWS_PER_FILE:
            self._finish()

    def __enter__(self) -> PartFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        if kind is None:
            if not self.files and self._writer is None:
                self.write(self.schema.empty_table())
            if self._writer is not None:
                self._finish()
        elif self._writer is not None:
            self._block.__exit__(kind, error, traceback)

    def _finish(self) -> None:
        self._block.__exit__(None, None, None)
        self.files.append(self._name(len(self.files)))
        self._writer, self._in_file = None, 0
