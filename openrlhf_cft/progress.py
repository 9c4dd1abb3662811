"""Progress of a job or of a pass over rows: in a terminal one line that is updated, in a file a line every 30 s."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

FILE_SECONDS, LIVE_SECONDS = 30.0, 1.0  # between two lines in a file; between two updates of the live line

T = TypeVar("T")


class LiveLine:
    """Shows the latest of many texts. In a terminal it replaces the last one; a file gets one per `FILE_SECONDS`.

    Args:
        stream: the terminal or file.
        at_once: whether to show the first text immediately, not only after the first interval.
    """

    def __init__(self, stream: TextIO, at_once: bool = False) -> None:
        self.live = stream.isatty()
        self._stream = stream
        self._seconds = LIVE_SECONDS if self.live else FILE_SECONDS
        self._shown = time.monotonic() - (self._seconds if at_once else 0)
        self._open = False  # whether the cursor is still on the line of a text

    @property
    def due(self) -> bool:
        """Whether a text would be shown now."""
        return time.monotonic() - self._shown >= self._seconds

    def show(self, text: str) -> None:
        """Show a text, if one is due."""
        if not self.due:
            return
        self._shown, self._open = time.monotonic(), self.live
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r{text[:width]}\x1b[K")
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Keep the last text and end its line, so that other output starts on a new line."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
        self._open = False


class Progress:
    """Counts rows, and shows `NAME: 1200/5000 rows, 310.0 rows/s, ETA 12 s` on standard error.

    A pass that ends before its first line is due shows nothing.

    Args:
        name: the start of each line.
        total: the number of all rows.
        unit: the name of what is counted.
    """

    def __init__(self, name: str, total: int, unit: str = "rows") -> None:
        self._name, self._total, self._unit = name, total, unit
        self._done = 0
        self._started = time.monotonic()
        self._line = LiveLine(sys.stderr)

    def add(self, rows: int, detail: str = "") -> None:
        """Count `rows` more rows as done; `detail` is shown in the line."""
        self._done += rows
        if self._line.due:
            rate = self._done / (time.monotonic() - self._started)
            eta = f"{(self._total - self._done) / rate:.0f} s" if rate else "?"
            detail = f", {detail}" if detail else ""
            of = f"{self._done}/{self._total} {self._unit}"
            self._line.show(f"{self._name}: {of}, {rate:.1f} {self._unit}/s{detail}, ETA {eta}")
        if self._done >= self._total:
            self._line.close()

    def over(self, rows: Iterable[T]) -> Iterator[T]:
        """Yield the rows one by one. A row counts as done when the next one is requested."""
        for row in rows:
            yield row
            self.add(1)
