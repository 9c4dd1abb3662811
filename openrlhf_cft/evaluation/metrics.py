"""The figures of a checkpoint on a data set, as what each question adds to each figure. Pure.

Every figure is a ratio of two sums over questions (`intervals.py`). A figure that was not measured is absent, never 0:
Pass@k if k exceeds the number of samples, a majority if the verifier finds no answers, an entropy without a sample.

| figure | a question's numerator / denominator |
|---|---|
| `accuracy` | greedy response correct / 1 |
| `pass@k`, `majority@k` | probability that k of its samples solve it / 1 |
| `entropy` | sum of entropies at the positions that were measured (`entropy.py`) / positions |
| `distinct_answers`, `distinct_1` ... | the value for its samples / 1 |
| `greedy_length`, `sampled_length` | tokens / responses |
| `greedy_cut_off` ..., `greedy_unparsable` ... | responses out of budget, without an answer / responses |
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.evaluation.diversity import LARGEST_N, distinct_answers, distinct_n
from openrlhf_cft.evaluation.majority import majority_at, votes
from openrlhf_cft.evaluation.samples import SampledQuestion, SampledResponse

ENTROPY = "entropy"
NEEDS_ANSWERS = ("majority@", "distinct_answers")

Ratio = tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """The measurements of one checkpoint on one data set."""

    ids: list[str]  # (Q,) of the questions
    ratios: dict[str, Any]  # (Q, 2) float64 each, by the figure's name: numerator and denominator
    samples: int  # n, of each question


def pass_at_k(samples: int, correct: int, k: int) -> float | None:
    """The unbiased estimate of Pass@k from n samples of one question (Chen et al. 2021, arXiv 2107.03374, Eq. 1).

    Args:
        samples: n, how many were drawn.
        correct: c, how many of them are correct.
        k: how many samples the estimated experiment draws.

    Returns:
        1 - C(n - c, k) / C(n, k); None if k > n, which n samples cannot estimate.
    """
    if k > samples:
        return None
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def powers_of_two(samples: int) -> list[int]:
    """1, 2, 4 ... up to `samples`, and `samples` itself."""
    return sorted({2**i for i in range(samples.bit_length()) if 2**i <= samples} | {samples}) if samples else []


def measure(questions: Iterable[SampledQuestion], samples: int, answers: bool = True) -> Measured:
    """All figures of one checkpoint on one data set.

    Args:
        questions: read one after the other; none is kept in memory.
        samples: n, the number of samples of each question.
        answers: whether the verifier finds answers in responses; if not, majorities and distinct answers
            are left out.
    """
    ids: list[str] = []
    all_ratios: list[dict[str, Ratio]] = []
    for question in questions:
        ids.append(question.id)
        all_ratios.append(question_ratios(question, samples))
    names = [name for name in (all_ratios[0] if all_ratios else ()) if answers or not name.startswith(NEEDS_ANSWERS)]
    return Measured(ids, {name: np.array([ratios[name] for ratios in all_ratios], float) for name in names}, samples)


def question_ratios(question: SampledQuestion, samples: int) -> dict[str, Ratio]:
    """What one question adds to each figure; see the table above."""
    drawn = question.samples
    ratios: dict[str, Ratio] = {"accuracy": (float(question.greedy.correct), 1)}
    if samples:
        ratios |= _at_k(drawn, samples)
        ratios[ENTROPY] = (0, 0)  # keeps its place in the order; `summary.with_entropy` fills it in
        ratios["distinct_answers"] = (distinct_answers([sample.answer for sample in drawn]), 1)
        for n in range(1, LARGEST_N + 1):
            share = distinct_n([sample.token_ids for sample in drawn], n)
            ratios[f"distinct_{n}"] = (0, 0) if share is None else (share, 1)
    return ratios | _ends("greedy", [question.greedy]) | (_ends("sampled", drawn) if samples else {})


def _at_k(drawn: Sequence[SampledResponse], samples: int) -> dict[str, Ratio]:
    """Pass@k and majority@k."""
    correct = [sample.correct for sample in drawn]
    majority = majority_at(votes([sample.answer for sample in drawn], correct))
    passes: dict[str, Ratio] = {}
    for k in powers_of_two(samples):
        estimate = pass_at_k(len(drawn), sum(correct), k)
        passes[f"pass@{k}"] = (0, 0) if estimate is None else (estimate, 1)
    # The majority of one sample equals Pass@1.
    return passes | {f"majority@{k}": (majority[k], 1) for k in powers_of_two(samples) if 1 < k < len(majority)}


def _ends(kind: str, responses: Sequence[SampledResponse]) -> dict[str, Ratio]:
    """How long responses are, and how they end."""
    count = len(responses)
    return {
        f"{kind}_length": (sum(response.length for response in responses), count),
        f"{kind}_cut_off": (sum(not response.stopped for response in responses), count),
        f"{kind}_unparsable": (sum(response.verdict is Verdict.UNPARSABLE for response in responses), count),
    }
