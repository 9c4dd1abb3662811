"""Where the messages of this package go: its logger, `openrlhf_cft`, and how a command shows what it logs.

Results are printed on standard output. Everything else is logged, and a command shows it on standard error.
"""

from __future__ import annotations

import logging
import sys

LEVELS = ("debug", "info", "warning", "error")
DEFAULT = "info"
PACKAGE = logging.getLogger("openrlhf_cft")
ERASE = "\r\x1b[K"  # a progress line that a terminal may show


def show(level: str | int = DEFAULT) -> None:
    """Show on standard error what is logged at `level` or above: with time and level, unless that is a terminal.

    Calling it again changes the level alone.
    """
    if not any(isinstance(handler, _Shown) for handler in PACKAGE.handlers):
        PACKAGE.addHandler(_Shown())
        PACKAGE.propagate = False
    PACKAGE.setLevel(level.upper() if isinstance(level, str) else level)


def show_unless_configured() -> None:
    """`show`, unless the program that uses this package has set logging up itself."""
    if not PACKAGE.hasHandlers():
        show()


def say(text: str) -> None:
    """Print on standard error as it is, in place of a progress line that may be there: how a command ended."""
    start = ERASE if sys.stderr.isatty() else ""
    print(start + text, file=sys.stderr, flush=True)


class _Shown(logging.Handler):
    """Writes to what is standard error at that moment."""

    _in_file = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
    _in_terminal = logging.Formatter("%(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            form = self._in_terminal if sys.stderr.isatty() else self._in_file
            say(form.format(record))
        except Exception:  # a full disk or a closed terminal must not end the job
            self.handleError(record)
