"""Strict-k: which alternatives a token has, which to try next, and when the token is decided. Pure functions.

Source: arXiv 2510.10974, "Strict-k": a token is critical iff each of its k - 1 alternatives ends in a wrong answer.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from openrlhf_cft.data.records import Verdict

# Engines cut their list of top tokens at a fixed length and ignore ties, so we ask for more tokens than we need: in
# bfloat16 several tokens often share one logit, and the smaller id must win, whichever one the engine returned first.
TIE_MARGIN = 8


@dataclass(frozen=True)
class Candidate:
    """A token that could replace the response's own token."""

    token_id: int
    rank: int  # 1 = the most probable token at this position
    logprob: float  # natural logarithm


def candidates(
    top_logprobs: Sequence[tuple[int, float]], chosen: int, top_k: int, vocabulary: Container[int] | None = None
) -> list[Candidate]:
    """The alternatives to `chosen` at one position, in the order in which they are tried.

    Args:
        top_logprobs: (>= top_k,) pairs of token id and logprob, in any order.
        chosen: the token that the response has here.
        top_k: k of Strict-k, at least 2.
        vocabulary: the ids that stand for a token, None for all. A model may have more ids, which pad its vocabulary
            and stand for no text. They are not alternatives, and get no rank.

    Returns:
        The first k - 1 tokens other than `chosen`, by falling logprob; of equal ones, the smaller token id comes
        first. If `chosen` is the argmax, these are the ranks 2..k; otherwise they are the best k - 1 other tokens.
    """
    tokens = [pair for pair in top_logprobs if vocabulary is None or pair[0] in vocabulary]
    ordered = sorted(tokens, key=lambda pair: (-pair[1], pair[0]))
    ranked = [Candidate(token_id, rank, logprob) for rank, (token_id, logprob) in enumerate(ordered, start=1)]
    return [candidate for candidate in ranked if candidate.token_id != chosen][: top_k - 1]


def passed_over(
    top_logprobs: Sequence[tuple[int, float]], tried: Sequence[Candidate], vocabulary: Container[int] | None
) -> int:
    """The number of ids that stand for no token and are more probable than the last candidate of a position."""
    if vocabulary is None or not tried:
        return 0
    return sum(token_id not in vocabulary and logprob > tried[-1].logprob for token_id, logprob in top_logprobs)


def decided(verdicts: Sequence[Verdict], exhaustive: bool) -> bool:
    """Whether the remaining alternatives can be skipped: one success already makes the token not critical."""
    return not exhaustive and any(verdict is Verdict.CORRECT for verdict in verdicts)


def is_critical(verdicts: Sequence[Verdict]) -> bool:
    """Apply Strict-k to the verdicts on the tried alternatives, at least one.

    Raises:
        ValueError: there is no verdict, so nothing was measured.
    """
    if not verdicts:
        raise ValueError("a token without a tried alternative is unmeasured, not critical")
    return all(verdict is not Verdict.CORRECT for verdict in verdicts)
