"""Progress of a job or of a pass over rows: in a terminal one line that is updated, elsewhere a message every 30 s."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from openrlhf_cft import log

LOG_SECONDS, LIVE_SECONDS = 30.0, 1.0  # between two messages; between two updates of the live line

logger = logging.getLogger(__name__)

T = TypeVar("T")


class LiveLine:
    """Shows the latest of many texts on standard error.

    In a terminal it replaces the last one. Elsewhere one text per `LOG_SECONDS` is logged, at the level `info`.

    Args:
        at_once: whether to show the first text immediately, not only after the first interval.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.live = log.in_terminal()
        self._seconds = LIVE_SECONDS if self.live else LOG_SECONDS
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
        self._shown = time.monotonic()
        if not self.live:
            logger.info("%s", text)
        elif logger.isEnabledFor(logging.INFO):
            self._open = True
            width = shutil.get_terminal_size().columns - 1
            log.write(f"\r{text[:width]}\x1b[K")

    def close(self) -> None:
        """Keep the last text and end its line, so that other output starts on a new line."""
        if self._open:
            log.write("\n")
        self._open = False


class Progress:
    """Counts rows, and shows `NAME: 1200/5000 rows, 310.0 rows/s, ETA 12 s`.

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
        self._line = LiveLine()

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
        try:
            for row in rows:
                yield row
                self.add(1)
        finally:
            self._line.close()  # there may be fewer rows than the total, or an error
