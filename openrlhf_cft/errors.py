"""The exceptions of this package. A command reports an `InputError` or a `JobError` in one sentence. Any other
exception is a bug of ours: it keeps its traceback and asks for a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class InputError(ValueError):
    """The user's input is wrong. The message names the flag or the row, and the value."""


def listed(about: str, problems: Sequence[str]) -> InputError:
    """An `InputError` for one problem as it is, or for several problems, one per line below `about`."""
    return InputError("\n  ".join([about, *problems] if problems[1:] else problems))


class EngineError(RuntimeError):
    """The engine failed (out of memory, died, refused a request). This is never a verdict: the work is retried."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log  # output of the engine's processes, if one of them failed


class VerifierError(RuntimeError):
    """The verifier could not run, so nothing is known about the response. This is never a verdict: retry later."""


class Failure(NamedTuple):
    """A row that could not be finished."""

    id: str
    error: str  # one sentence
    traceback: str = ""  # only if the error is a bug of ours


class JobError(RuntimeError):
    """The job had to end. Finished work is kept, and the next run resumes from it. The message says why."""

    def __init__(self, message: str, failures: list[Failure] | None = None) -> None:
        super().__init__(message)
        self.failures = failures or []
