"""What ends a command with a sentence. Everything else is a fault of ours, and keeps its traceback."""

from __future__ import annotations

from typing import NamedTuple


class InputError(ValueError):
    """What the user gave is wrong. The message names the flag or the row, and the value."""


class Failure(NamedTuple):
    """A row that could not be finished."""

    id: str
    error: str  # one sentence
    traceback: str = ""  # where it is a fault of ours


class JobError(RuntimeError):
    """The job had to end; what it finished stays, and the next run goes on from there. The message says why."""

    def __init__(self, message: str, failures: list[Failure] | None = None) -> None:
        super().__init__(message)
        self.failures = failures or []
