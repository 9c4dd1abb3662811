"""Open, check and rewrite an annotated data set as Arrow record batches, with nothing lost.

    data = open_data("annotated")
    schema = with_record(data.schema, "sampled", {"rows": 10})
    write(output("out", [data]), schema, (change(batch) for batch in data.batches()))

Invariants:

- Columns that a verb does not touch keep their Arrow type and values. The schema keeps its field and file metadata.
- A data set appears whole or not at all. On a local filesystem its directory gets its final name when it is complete.
  Elsewhere the files get their final names when the last one is complete; readers skip the names they have before.
- One record batch is in memory at a time, whatever the size of the data set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrlhf_cft.data.location import Location, location, named_if_full, without_credentials
from openrlhf_cft.data.parquet import PartFiles
from openrlhf_cft.data.records import ID, METADATA_KEY, RESPONSE_IDS
from openrlhf_cft.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


Row = dict[str, Any]


@dataclass(frozen=True)
class AnnotatedData:
    """An annotated data set that can be read."""

    name: str  # as the user gave it, without credentials
    place: Location
    files: tuple[Location, ...]  # at least one
    schema: pa.Schema  # of each file, with the file metadata of the first

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata that the annotator recorded, and the verbs after it; empty if there is none."""
        stored = (self.schema.metadata or {}).get(METADATA_KEY)
        return dict(json.loads(stored)) if stored else {}

    def require(self, *columns: str) -> None:
        """Refuse a data set that lacks a column.

        Raises:
            InputError: a column is missing; names it and the columns that exist.
        """
        for name in columns:
            if name not in self.schema.names:
                there = ", ".join(self.schema.names)
                raise InputError(f"{self.name!r} has no column {name!r}; its columns are {there}")

    def require_weights(self, *columns: str) -> None:
        """Refuse a data set that lacks a column, or whose column does not hold a list of numbers in each row.

        Raises:
            InputError: names the column.
        """
        self.require(*columns)
        for name in columns:
            kind = self.schema.field(name).type
            if not holds_numbers(kind):
                raise InputError(f"column {name!r} of {self.name!r} holds {kind}, and no list of numbers")

    def count(self) -> int:
        """The number of rows, from the files' footers."""
        import pyarrow.parquet as pq

        return sum(int(pq.read_metadata(file.path, filesystem=file.filesystem).num_rows) for file in self.files)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows in order, at most `BATCH_ROWS` at a time; all columns, or the named ones in the file's order."""
        for file in self.files:
            yield from file.batches(columns)

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """All rows in order: all columns, or the named ones."""
        for batch in self.batches(columns):
            yield from batch.to_pylist()


def holds_numbers(kind: pa.DataType) -> bool:
    """Whether a column of this type holds a list of numbers in each row."""
    import pyarrow as pa

    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    return any(test(kind.value_type) for test in tests)


def open_data(path: str | Path) -> AnnotatedData:
    """Open a data set: a Parquet file, or a directory of them, on any filesystem.

    Raises:
        InputError: there is no Parquet file, a file is not whole, the files have different columns, or a column of
            annotated rows is missing.
    """
    target, name = location(path), without_credentials(str(path))
    parquet_files = target.files(".parquet") if target.is_dir() else [target] if target.exists() else []
    files = tuple(file for file in parquet_files if not file.name.startswith("."))
    if not files:
        raise InputError(f"no Parquet file at {name!r}")
    schemas = []
    for file in files:
        schemas.append(file.schema())
        if not schemas[-1].equals(schemas[0]):
            raise InputError(f"{str(file)!r} has other columns than {files[0].name!r}: join them with masks merge")
    data = AnnotatedData(name, target, files, schemas[0])
    data.require(ID, RESPONSE_IDS)
    return data


def output(path: str | Path, inputs: Sequence[AnnotatedData]) -> Location:
    """The location for a new data set: a directory that does not exist yet, or is empty.

    Raises:
        InputError: the path overlaps an input, already holds something, or is named like a file.
    """
    try:
        out = location(path)
    except InputError as error:
        raise InputError(f"--out: {error}") from None
    if out.name.endswith(".parquet"):
        raise InputError(f"--out: {str(out)!r} is named like a file, and a data set is a directory of files")
    for data in inputs:
        same = out.filesystem == data.place.filesystem
        if same and any(_nested(_real(folder), _real(data.place)) for folder in (out, unfinished(out))):
            raise InputError(f"--out: {str(out)!r} and the input {data.name!r} overlap: give another")
    if out.exists() and not (out.is_dir() and _is_empty(out)):
        raise InputError(f"--out: {str(out)!r} is there already: give another, or delete it")
    return out


def unfinished(out: Location) -> Location:
    """The location where a data set is written before it gets its final name. Its name is hidden and not used by
    anything else, because its contents are deleted. On object stores it is `out` itself, with hidden file names."""
    if not out.is_local:
        return out
    parent, name = os.path.split(out.path.rstrip("/"))
    return Location(out.filesystem, os.path.join(parent, f".{name}.openrlhf_cft-unfinished"))


def make_unfinished(out: Location) -> None:
    """Create the directory that `unfinished` names.

    Raises:
        InputError: it cannot be created.
    """
    try:
        unfinished(out).make_dir()
    except OSError as error:
        raise InputError(f"--out: cannot write to {str(out)!r}: {error}") from None


def _real(target: Location) -> str:
    return os.path.realpath(target.path) if target.is_local else target.path.rstrip("/")


def _nested(left: str, right: str) -> bool:
    return f"{left}/".startswith(f"{right}/") or f"{right}/".startswith(f"{left}/")


def _is_empty(directory: Location) -> bool:
    """Whether the directory holds nothing but the leftovers of an interrupted `write`."""
    from pyarrow.fs import FileSelector

    return all(
        info.base_name.startswith(".part-")
        for info in directory.filesystem.get_file_info(FileSelector(directory.path))
    )


def with_record(schema: pa.Schema, key: str, value: Any) -> pa.Schema:
    """The schema with `value` under `key` in this project's file metadata; all other metadata is kept."""
    metadata = dict(schema.metadata or {})
    recorded = json.loads(metadata.get(METADATA_KEY, b"{}"))
    metadata[METADATA_KEY] = json.dumps({**recorded, key: value}).encode()
    return schema.with_metadata(metadata)


def write(out: Location, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write a data set with `ROWS_PER_FILE` rows per file, or one file without rows. A failure leaves nothing behind.

    Args:
        out: the location that `output` returned.
        schema: the schema of each batch, with the file metadata to store.
        batches: the rows.

    Returns:
        The number of rows.

    Raises:
        InputError: the location cannot be written to.
    """
    folder = unfinished(out)
    _discard(out, folder)
    make_unfinished(out)
    prefix = "" if out.is_local else "."
    try:
        with named_if_full(out), PartFiles(schema, lambda n: folder / f"{prefix}part-{n:05d}.parquet") as parts:
            for batch in batches:
                parts.write(batch)
    except BaseException:
        _discard(out, folder)
        raise
    if out.is_local:
        folder.move(out)
    else:
        for part in parts.files:
            part.move(out / part.name.removeprefix("."))
    return parts.rows


def _discard(out: Location, folder: Location) -> None:
    """Remove the leftovers of an interrupted `write`."""
    if out.is_local:
        if folder.is_dir():
            folder.filesystem.delete_dir(folder.path)
        return
    for part in folder.files(".parquet"):
        if part.name.startswith(".part-"):
            part.delete()
