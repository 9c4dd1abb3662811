"""What this package raises. A command ends with a sentence for `InputError` and `JobError` alone: everything else is a
fault of ours, keeps its traceback and asks for a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class InputError(ValueError):
    """What the user gave is wrong. The message names the flag or the row, and the value."""


def listed(about: str, problems: Sequence[str]) -> InputError:
    """One problem as it is; several, a line each, under what they are about."""
    return InputError("\n  ".join([about, *problems] if problems[1:] else problems))


class EngineError(RuntimeError):
    """The engine failed (out of memory, died, refused a request). Never a verdict: the work is retried."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log  # what the engine's processes wrote, where one of them failed


class VerifierError(RuntimeError):
    """The verifier could not run, so nothing is known about the response. Try again later; never a verdict."""


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
