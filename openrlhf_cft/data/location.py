"""A path on any filesystem that pyarrow knows: a local one, or `s3://`, `gs://`, `hdfs://`, `abfs://` and the like.

out = location("s3://bucket/annotated")
(out / "summary.json").write_text("{}")     # whole or absent
for file in (out / "outcomes").files(".parquet"): ...
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from openrlhf_cft.errors import InputError

if TYPE_CHECKING:
    from pyarrow import NativeFile, RecordBatch, Schema
    from pyarrow.fs import FileSystem

logger = logging.getLogger(__name__)

BATCH_ROWS = 256
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share of it, the largest file that is allowed


@dataclass(frozen=True)
class Location:
    """A file or directory. It can be sent to other processes. `str(location)` never shows the URI's credentials."""

    filesystem: FileSystem
    path: str

    def __truediv__(self, name: str) -> Location:
        return Location(self.filesystem, f"{self.path.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.path if self.is_local else f"{self.filesystem.type_name}://{self.path}"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def is_local(self) -> bool:
        """Whether this is a path of this machine."""
        return str(self.filesystem.type_name) == "local"

    def exists(self) -> bool:
        """Whether there is a file or a directory."""
        from pyarrow.fs import FileType

        return self.filesystem.get_file_info(self.path).type != FileType.NotFound

    def is_dir(self) -> bool:
        """Whether there is a directory; on an object store, whether anything is below."""
        from pyarrow.fs import FileType

        return self.filesystem.get_file_info(self.path).type == FileType.Directory

    def make_dir(self) -> None:
        """Make the directory and those above it, where the filesystem has any."""
        self.filesystem.create_dir(self.path, recursive=True)

    def make_dirs(self) -> list[Location]:
        """As `make_dir`. Returns the directories that did not exist before, the outermost first; on a filesystem that
        is not local, this one at most."""
        places = [self]
        while self.is_local and not places[0].exists():
            places.insert(0, Location(self.filesystem, os.path.dirname(places[0].path)))
        made = [place for place in places if not place.exists()]
        self.make_dir()
        return made

    def delete_if_empty(self) -> None:
        """Delete this directory, unless something is in it."""
        from pyarrow.fs import FileSelector

        if self.is_dir() and not self.filesystem.get_file_info(FileSelector(self.path)):
            self.filesystem.delete_dir(self.path)

    def directories(self) -> list[Location]:
        """The directories in this directory, sorted; none if it does not exist."""
        from pyarrow.fs import FileSelector, FileType

        infos = self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True))
        return [
            Location(self.filesystem, info.path)
            for info in sorted(infos, key=lambda info: str(info.path))
            if info.type == FileType.Directory
        ]

    def files(self, ending: str) -> list[Location]:
        """The files in this directory whose names end in `ending`, sorted; none if the directory does not exist."""
        from pyarrow.fs import FileSelector, FileType

        infos = self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True))
        paths = (info.path for info in infos if info.type == FileType.File and info.base_name.endswith(ending))
        return [Location(self.filesystem, path) for path in sorted(paths)]

    def open_input(self) -> NativeFile:
        """Open this file for reading, with seek."""
        return self.filesystem.open_input_file(self.path)

    def read_text(self) -> str:
        """The whole of a text file."""
        with self.open_input() as file:
            return bytes(file.read()).decode()

    def write_text(self, text: str) -> None:
        """Write a text file so that it is whole or absent, whatever happens meanwhile."""
        self.write_bytes(text.encode())

    def write_bytes(self, content: bytes) -> None:
        """As `write_text`, for bytes."""
        partial = self.partial()
        try:
            with named_if_full(self), self.filesystem.open_output_stream(partial.path) as stream:
                stream.write(content)
        except BaseException:
            if partial.path != self.path:  # otherwise an object of before may still be there
                with suppress(OSError):
                    partial.delete()
            raise
        partial.move(self)

    def partial(self) -> Location:
        """The location to write a file to, before it is moved here complete.

        On object stores this is the final path: an object appears only when it is closed, and S3 cannot move objects
        over 5 GB.
        """
        if not self.is_local:
            return self
        return Location(self.filesystem, f"{self.path}.partial")

    def move(self, target: Location) -> None:
        """Move this file and replace the target; in one step on a local filesystem."""
        if self.path != target.path:
            self.filesystem.move(self.path, target.path)

    def delete(self) -> None:
        """Delete this file."""
        self.filesystem.delete_file(self.path)

    def clear(self) -> None:
        """Delete the contents of this directory, if it exists."""
        if self.is_dir():
            self.filesystem.delete_dir_contents(self.path)

    def schema(self) -> Schema:
        """The columns of a Parquet file, and its metadata.

        Raises:
            InputError: the file is cut off, or is not a Parquet file.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with self.open_input() as file:
                return pq.read_schema(file)
        except pa.ArrowInvalid as error:
            raise InputError(f"{str(self)!r} is no whole Parquet file: {str(error).splitlines()[0]}") from None

    def batches(self, columns: Sequence[str] | None = None, rows: int = BATCH_ROWS) -> Iterator[RecordBatch]:
        """The rows of a Parquet file in order, at most `rows` in memory at a time; all columns, or the named ones.

        Raises:
            InputError: as `schema`, or the rows cannot be read.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = self.schema().names
        kept = None if columns is None else [name for name in names if name in columns]
        try:
            with pq.ParquetFile(self.path, filesystem=self.filesystem) as file:
                yield from file.iter_batches(batch_size=rows, columns=kept)
        except (pa.ArrowException, OSError) as error:  # pyarrow raises several types for changed bytes
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of the system: the file cannot be reached
            raise InputError(f"{str(self)!r} is damaged: {str(error).splitlines()[0]}") from error

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """As `batches`, row by row."""
        for batch in self.batches(columns):
            yield from batch.to_pylist()


def location(value: str | Path) -> Location:
    """A local path or a URI.

    Raises:
        InputError: pyarrow cannot read the URI, or does not know its filesystem.
    """
    from pyarrow.fs import FileSystem, LocalFileSystem

    if isinstance(value, Path) or "://" not in value:
        return Location(LocalFileSystem(), os.path.abspath(value))
    try:
        filesystem, path = FileSystem.from_uri(value)
    except (ValueError, OSError, NotImplementedError) as error:
        reason = str(error).replace(value, without_credentials(value))
        raise InputError(
            f"{without_credentials(value)!r} is on no filesystem that pyarrow can reach: {reason}"
        ) from None
    return Location(filesystem, path)


@contextmanager
def named_if_full(place: Location) -> Iterator[None]:
    """Name what is being written in the error that a full disk raises, which names no file. The outermost stays."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise OSError(error.errno, os.strerror(error.errno), str(place)) from error
        raise


def file_place(value: str, flag: str) -> Location:
    """The location of a file to write.

    Raises:
        InputError: the path is a directory, or its parent directory does not exist; names the flag.
    """
    try:
        place = location(value)
    except InputError as error:
        raise InputError(f"{flag}: {error}") from None
    if place.is_local and os.path.isdir(place.path):
        raise InputError(f"{flag}: {value!r} is a directory; name the file")
    if place.is_local and not os.path.isdir(os.path.dirname(place.path)):
        raise InputError(f"{flag}: there is no directory {os.path.dirname(place.path)!r}")
    return place


def without_credentials(uri: str) -> str:
    """A URI without the credentials that may be in it."""
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.partition('?')[0].rpartition('@')[2]}"


def lock(directory: Location) -> TextIO | None:
    """Lock a directory against other processes until the returned file is closed or this process ends in any way.

    Not every filesystem has locks, and remote ones have none. Without one, None is returned.

    Raises:
        InputError: another process holds the lock; names that process.
    """
    if not directory.is_local:
        return None
    import fcntl  # only here: Windows does not have it

    file = open(os.path.join(directory.path, "lock"), "a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise InputError(f"{holder} is working on {str(directory)!r}: wait for it or end it") from None
    except OSError as error:  # Lustre and other mounts may have no locks
        logger.warning("%s cannot be locked (%s): run only one command on it at a time", directory, error)
        file.close()
        return None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
