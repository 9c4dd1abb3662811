"""What a verifier returns, and the shape of a verifier.

A verifier runs in a worker process with hard limits (`verify.sandbox`), so it needs no limits of its own. It reports
hostile input as a verdict, never as an exception. An exception means that the verifier itself failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from openrlhf_cft.data.records import Verdict


@dataclass(frozen=True)
class Judgement:
    """A verifier's judgement of one response."""

    verdict: Verdict
    answer: str | None = None  # the answer in the response; None if there is none, or the limit came first
    found_by: str | None = None  # boxed, hashes, phrase, last_number ...; None exactly if `answer` is None
    score: float | None = None  # in [0, 1]; None if the limit came first: nothing was measured


@dataclass(frozen=True)
class Verifier:
    """A function of a response, its gold answer and its prompt; how it writes a gold response; if it is trusted."""

    judge: Callable[[str, str, str], Judgement]
    gold_response: Callable[[str], str | None]  # a response that gives the gold answer; None: not known
    trusted: bool = False  # the user's own code, which may open files and connections
