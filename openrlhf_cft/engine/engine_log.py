"""The log of an engine's processes, and the error in it that explains all others.

vLLM runs in its own processes. When one fails, the exception that arrives here only says that one failed. The cause
is in the output of these processes, which under Ray goes to two files:

    log = EngineLog()               # before the engine starts
    ...
    raise EngineError(log.cause(error), log.text())
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

MAX_BYTES = 1 << 19  # kept of each output, from its end
OUTPUTS = (1, 2)  # vLLM logs to the standard output; exceptions that nobody caught go to the error output
# The processes that a line names; then, if the line was logged, its level, time and place.
PREFIX = re.compile(
    r"(?P<process>(?:\((?:EngineCore|Worker|APIServer)[^)]*\) ?)*)"
    r"(?:(?P<level>[A-Z]+) \d\d-\d\d \d\d:\d\d:\d\d (?P<place>\[[^\]]*\]) ?)?"
)
# Exceptions that only say that another process has failed.
CONSEQUENCE = re.compile(r"see (?:the )?(?:root cause|stack trace)|initialization failed|EngineDeadError", re.I)
# vLLM only warns when its compiled part does not load. It fails when it first uses that part.
NO_OPERATOR = re.compile(r"'_OpNamespace' '\w+' object has no attribute")
NOT_LOADED = re.compile(r"Failed to import from (vllm\.\S+): \w+\((['\"])(.*?)\2\)")
SIGNAL = re.compile(r"Failed core proc\(s\): \{[^}]*: -(\d+)")


class EngineLog:
    """The output of this process and its children from now on, if it goes to files."""

    def __init__(self) -> None:
        starts = [_file_of(descriptor) for descriptor in OUTPUTS]
        self._starts = dict(start for start in starts if start is not None)

    def text(self) -> str:
        """The standard output, then the error output; of each the last `MAX_BYTES` at most."""
        parts = []
        for path, start in self._starts.items():
            try:
                with path.open("rb") as file:
                    file.seek(max(start, path.stat().st_size - MAX_BYTES))
                    parts.append(file.read(MAX_BYTES).decode(errors="replace"))
            except OSError:  # deleted meanwhile, or this user may not read it
                continue
        return "".join(parts)

    def cause(self, error: BaseException) -> str:
        """Why the engine failed, in one line: from the output of its processes, or else from the given exception."""
        return cause(self.text()) or _killed(str(error)) or _one_line(f"{type(error).__name__}: {error}")


def cause(text: str) -> str | None:
    """The first exception in a log that is not a consequence of another; None if there is none.

    If vLLM's compiled part lacks an operator, the cause is the reason why that part was not loaded.
    """
    for exception in exceptions(text):
        if CONSEQUENCE.search(exception):
            continue
        absent = NOT_LOADED.search(text) if NO_OPERATOR.search(exception) else None
        return f"{absent[1]}: {absent[3]}" if absent else exception
    return None


def exceptions(text: str) -> Iterator[str]:
    """The last line of each traceback that a process of the engine logged as an error, or ended with.

    Tracebacks of several processes may be interleaved; the prefix of a line shows which one it belongs to.
    """
    inside: set[tuple[str, str]] = set()
    for line in text.splitlines():
        prefix = PREFIX.match(line)
        assert prefix is not None, "every part of the pattern is optional"
        if not (prefix["process"] or prefix["level"]) or prefix["level"] not in (None, "ERROR"):
            continue
        key, rest = (prefix["process"] or "", prefix["place"] or ""), line[prefix.end() :]
        if rest.startswith("Traceback (most recent call last)"):
            inside.add(key)
        elif key in inside and rest and not rest[0].isspace():
            inside.discard(key)
            yield _one_line(rest)


def _killed(message: str) -> str | None:
    match = SIGNAL.search(message)
    return match and f"its process was killed by signal {match[1]}, often for lack of memory"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _file_of(descriptor: int) -> tuple[Path, int] | None:
    """The file that a descriptor of this process writes to, and its size; None for a terminal or a pipe."""
    try:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        return (path, path.stat().st_size) if path.is_file() else None
    except OSError:  # not Linux, or a folder that this user may not read
        return None
