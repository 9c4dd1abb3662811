"""Where the messages of this package go: its logger, `openrlhf_cft`, and how a command shows what it logs.

Results are printed on standard output. Everything else is logged, and a command shows it on standard error.
"""

from __future__ import annotations

import contextlib
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


def in_terminal() -> bool:
    """Whether standard error is a terminal. It may be closed, too."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:
        return False


def write(text: str) -> None:
    """Write to standard error as it is. A closed terminal or a full disk must not end a job."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()


def say(text: str) -> None:
    """Write a line to standard error, in place of a progress line that may be there."""
    write(f"{ERASE if in_terminal() else ''}{text}\n")


class _Shown(logging.Handler):
    """Writes to what is standard error at that moment."""

    _in_file = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
    _in_terminal = logging.Formatter("%(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = (self._in_terminal if in_terminal() else self._in_file).format(record)
        except Exception:
            self.handleError(record)
        else:
            say(text)
