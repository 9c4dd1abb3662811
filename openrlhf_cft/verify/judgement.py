"""What a verifier returns, and the shape of a verifier.

A verifier is a function of a response and a gold answer. It runs in a worker process with hard limits
(`verify.sandbox`), so it needs none of its own, and it reports hostile input as a verdict, never as an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from openrlhf_cft.records import Verdict


@dataclass(frozen=True)
class Judgement:
    """What a verifier says of one response."""

    verdict: Verdict
    answer: str | None = None  # what was found in the response; None where nothing was, or the limit came first
    found_by: str | None = None  # boxed, hashes, phrase or last_number; None exactly where `answer` is


Verifier = Callable[[str, str], Judgement]
