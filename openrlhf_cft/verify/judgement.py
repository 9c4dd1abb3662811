"""What a verifier returns, and the shape of a verifier.

A verifier runs in a worker process with hard limits (`verify.sandbox`), so it needs none of its own, and it reports
hostile input as a verdict, never as an exception. An exception says that the verifier itself failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from openrlhf_cft.data.records import Verdict


@dataclass(frozen=True)
class Judgement:
    """What a verifier says of one response."""

    verdict: Verdict
    answer: str | None = None  # what was found in the response; None where nothing was, or the limit came first
    found_by: str | None = None  # boxed, hashes, phrase, last_number ...; None exactly where `answer` is
    score: float | None = None  # in [0, 1]; None where the limit came first: nothing was measured


@dataclass(frozen=True)
class Verifier:
    """A function of a response, its gold answer and its prompt, and what it can be asked beside that."""

    judge: Callable[[str, str, str], Judgement]
    gold_response: Callable[[str], str | None]  # a response that gives the gold answer; None: not known
    trusted: bool = False  # the user's own code, which may open files and connections
