"""Majority@k and distinctness against enumeration."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import tries

from openrlhf_cft.evaluation.diversity import distinct_answers, distinct_n
from openrlhf_cft.evaluation.majority import MAX_SAMPLES, Votes, majority_at, normalised, votes

ANSWERS = st.lists(st.sampled_from(["7", "7.0", "12", "13", "x", None]), min_size=1, max_size=7)


def literal_majority(answers: list[str | None], right: set[str], k: int) -> float:
    """Every subset of k, every tied answer as likely."""
    total, subsets = 0.0, list(itertools.combinations(answers, k))
    for subset in subsets:
        counts = Counter(normalised(answer) for answer in subset if answer is not None)
        best = [answer for answer, count in counts.items() if count == max(counts.values())]
        total += sum(answer in right for answer in best) / len(best) if best else 0.0
    return total / len(subsets)


@tries(150)
@given(ANSWERS, st.sampled_from([{"7"}, {"12", "x"}, set()]))
def test_majority_is_the_mean_over_all_subsets(answers: list[str | None], right: set[str]) -> None:
    vote = votes(answers, [answer is not None and normalised(answer) in right for answer in answers])
    found = majority_at(vote)
    assert len(found) == len(answers) + 1
    for k in range(1, len(answers) + 1):
        assert found[k] == pytest.approx(literal_majority(answers, right, k)), k


def test_a_verifier_that_contradicts_itself_counts_in_shares() -> None:
    assert votes(["7", "7", "8"], [True, False, False]) == Votes((2, 1), (0.5, 0.0), 0)
    assert majority_at(votes(["7", "7", "8"], [True, False, False]))[3] == 0.5


def test_majority_of_many_samples() -> None:
    """64 samples, half of them right and the others all different, and as many as are allowed."""
    found = majority_at(votes([*["7"] * 32, *map(str, range(100, 132))], [True] * 32 + [False] * 32))
    assert found[1] == pytest.approx(0.5) and found[64] == 1.0 and 0.5 < found[4] < found[16] < 1
    n = MAX_SAMPLES
    most = majority_at(votes(["7"] * (n - 1) + ["8"], [False] * (n - 1) + [True]))
    assert most[1] == pytest.approx(1 / n) and most[2] == pytest.approx(1 / n) and most[n] == 0
    assert all(math.isfinite(value) for value in most)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("12", "12.0"),
        ("1,200", "1200"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        ("$5$", "5"),
        ("Monday.", r"\text{monday}"),
    ],
)
def test_answers_are_equal_where_only_their_writing_differs(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


def test_answers_that_differ() -> None:
    assert (
        len({normalised(answer) for answer in ["12", "-12", "1.2", "x", r"\frac{1}{2}", r"\frac{2}{1}", "1/2"]}) == 7
    )


def test_distinct_answers_and_n_grams() -> None:
    assert distinct_answers(["7", "7.0", None, "8", None]) == 2 and distinct_answers([None]) == 0
    samples = [[1, 2, 1, 2], [1, 2, 3]]
    assert distinct_n(samples, 1) == 3 / 7
    assert distinct_n(samples, 2) == 3 / 5  # 12 21 12, 12 23: none reaches from one sample into the next
    assert distinct_n(samples, 3) == 3 / 3
    assert distinct_n([[1], [2]], 2) is None and distinct_n([], 1) is None


def test_units_do_not_split_the_votes() -> None:
    assert normalised("12 hours") == normalised("12") == normalised("12.0")
    assert len({normalised(answer) for answer in ("12", "12 million", "12 or 13", "hours")}) == 4
