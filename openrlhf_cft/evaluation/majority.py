r"""Majority vote over samples (self-consistency, Wang et al. 2022, arXiv 2203.11171), exactly. Pure.

- Samples vote for the answer that the verifier found in them; one without an answer abstains.
- Answers form one group if their normalised text is equal. The gold answer is not used: voters do not know it.
- A tie is broken by chance, and each tied group is equally likely. (If the samples are in random order, "the first of
  them" means the same.) If all abstain, the vote is wrong.
- `majority@k` is the expectation over all subsets of k of the n samples, not one draw.

    vote = votes(["12", "12.0", "7", None], [True, True, False, False])
    majority_at(vote)[2]        # of 2 samples
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openrlhf_cft.verify.equality import MAX_CHARS, plain_number

MAX_SAMPLES = 1_000  # binomials of more are beyond float64
# Notation that varies without a change of meaning: spaces, sizes of brackets and of fractions, dollar signs.
_NOTHING = re.compile(r"\\(?:left|right|displaystyle|[,;:! ])|\\?\$|\s+|[.]$")
# "12 hours" is a vote for 12, "12 million" is not.
_COUNTED = re.compile(
    r"\A([-+\d.,]{1,100})\s{1,3}"
    r"(?!(?:hundred|thousand|million|billion|trillion|dozen|percent|or|and|to)\b)[A-Za-z ]{1,60}\Z"
)
_SIZED_FRACTION = re.compile(r"\\[dt]frac")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mbox)\{([^{}]*)\}")


@dataclass(frozen=True)
class Votes:
    """How the samples of one question vote."""

    sizes: tuple[int, ...]  # of the groups of equal answers
    correct: tuple[float, ...]  # share of each group that is correct: 0 or 1, unless the verifier contradicts itself
    abstaining: int


def normalised(answer: str) -> str:
    """An answer as the votes compare it: plain numbers by value, other text without case and layout. Text that is
    longer than any answer (`MAX_CHARS`) stays unchanged."""
    if len(answer) > MAX_CHARS:
        return answer
    number = plain_number(_COUNTED.sub(r"\1", answer.strip().strip("$").replace("\\!", "")))
    if number is not None:
        return str(number)
    text = _TEXT.sub(r"\1", _SIZED_FRACTION.sub(r"\\frac", answer))
    return _NOTHING.sub("", text).lower()


def votes(answers: Sequence[str | None], correct: Sequence[bool]) -> Votes:
    """Group the answers of one question.

    Args:
        answers: (n,) the answer found in each sample; None if there is none.
        correct: (n,) whether the verifier calls each sample correct.
    """
    groups: dict[str, list[bool]] = {}
    for answer, is_correct in zip(answers, correct, strict=True):
        if answer is not None:
            groups.setdefault(normalised(answer), []).append(is_correct)
    ordered = sorted(((len(group), sum(group) / len(group)) for group in groups.values()), reverse=True)
    abstaining = sum(answer is None for answer in answers)
    return Votes(tuple(size for size, _ in ordered), tuple(share for _, share in ordered), abstaining)


@functools.lru_cache(maxsize=65_536)  # few patterns of votes make up a whole data set
def majority_at(vote: Votes) -> tuple[float, ...]:
    """The probability that the vote of k samples is correct.

    A group wins with j of its samples if no other group has more. If t other groups have j too, it wins one time in
    t + 1. A product of polynomials, with a factor for each other group, counts the subsets in which that happens.

    Returns:
        (n + 1,) by k; entry 0 is 0.
    """
    n = sum(vote.sizes) + vote.abstaining
    wins = np.zeros(n + 1)
    for group, (size, share) in enumerate(zip(vote.sizes, vote.correct, strict=True)):
        others = vote.sizes[:group] + vote.sizes[group + 1 :]
        for j in range(1, size + 1) if share else ():
            rest = _rest(others, vote.abstaining, j, n)
            shared = rest @ (1 / (1 + np.arange(rest.shape[1])))
            wins[j:] += share * math.comb(size, j) * shared[: n + 1 - j]
    return tuple(float(win) / math.comb(n, k) if k else 0.0 for k, win in enumerate(wins))


def _rest(others: tuple[int, ...], abstaining: int, j: int, n: int) -> Any:
    """(n + 1, ties + 1): entry (m, t) is the number of ways to draw m samples outside a group so that no other group
    has more than j of them, and t groups have exactly j."""
    counts = np.zeros((n + 1, sum(size >= j for size in others) + 1))
    counts[: abstaining + 1, 0] = [math.comb(abstaining, m) for m in range(abstaining + 1)]
    for size in others:
        product = np.zeros_like(counts)
        for drawn in range(min(size, j) + 1):
            ways = float(math.comb(size, drawn))
            if drawn < j:
                product[drawn:] += ways * counts[: n + 1 - drawn]
            else:
                product[drawn:, 1:] += ways * counts[: n + 1 - drawn, :-1]
        counts = product
    return counts
