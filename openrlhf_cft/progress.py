"""How far a job or a pass over rows is: one line that stays current in a terminal, a line every 30 s in a file."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

FILE_SECONDS, LIVE_SECONDS = 30.0, 1.0  # between two lines, and between two states of the live one

T = TypeVar("T")


class LiveLine:
    """The latest of many texts: in a terminal in place of the one before, in a file where that was `FILE_SECONDS` ago.

    Args:
        stream: where it is shown.
        at_once: whether the first text is shown, too, however early it comes.
    """

    def __init__(self, stream: TextIO, at_once: bool = False) -> None:
        self.live = stream.isatty()
        self._stream = stream
        self._seconds = LIVE_SECONDS if self.live else FILE_SECONDS
        self._shown = time.monotonic() - (self._seconds if at_once else 0)
        self._open = False  # whether the cursor stands behind a text

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
        """Leave the last text, for others to write behind it."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
        self._open = False


class Progress:
    """Counts, and shows `NAME: 1200/5000 rows, 310.0 rows/s, ETA 12 s` on standard error.

    Nothing is shown of what ends before a text is due.

    Args:
        name: before each line.
        total: rows in all.
        unit: what is counted.
    """

    def __init__(self, name: str, total: int, unit: str = "rows") -> None:
        self._name, self._total, self._unit = name, total, unit
        self._done = 0
        self._started = time.monotonic()
        self._line = LiveLine(sys.stderr)

    def add(self, rows: int, detail: str = "") -> None:
        """Some more are done; `detail` goes into the line."""
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
        """The rows one by one; each is done when the next is asked for."""
        for row in rows:
            yield row
            self.add(1)
