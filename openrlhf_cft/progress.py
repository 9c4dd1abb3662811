"""How far a pass over rows is: a line every few seconds, on standard error, so that output stays what it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

SECONDS = 10.0

T = TypeVar("T")


class Progress:
    """Counts, and prints `NAME: 1200/5000 rows, 310.0 rows/s, ETA 12 s`; nothing for what ends sooner than that.

    Args:
        name: before each line.
        total: rows in all.
        unit: what is counted.
    """

    def __init__(self, name: str, total: int, unit: str = "rows") -> None:
        self._name, self._total, self._unit = name, total, unit
        self._done = 0
        self._started = self._printed = time.monotonic()

    def add(self, rows: int, detail: str = "") -> None:
        """Some more are done; `detail` goes into the line."""
        self._done += rows
        now = time.monotonic()
        if now - self._printed < SECONDS:
            return
        self._printed = now
        rate = self._done / (now - self._started)
        eta = f"{(self._total - self._done) / rate:.0f} s" if rate else "?"
        detail = f", {detail}" if detail else ""
        line = f"{self._name}: {self._done}/{self._total} {self._unit}, {rate:.1f} {self._unit}/s{detail}, ETA {eta}"
        print(line, file=sys.stderr, flush=True)

    def over(self, rows: Iterable[T]) -> Iterator[T]:
        """The rows one by one; each is done when the next is asked for."""
        for row in rows:
            yield row
            self.add(1)
