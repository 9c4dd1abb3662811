"""Intervals against a literal bootstrap with the same draws, paired differences, McNemar against enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import tries

from openrlhf_cft.evaluation import intervals
from openrlhf_cft.evaluation.intervals import differences, figures, mcnemar


def questions(count: int, seed: int) -> dict[str, np.ndarray]:
    """An accuracy, and an entropy by tokens that a third of the questions, but not the first two, has none of."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 3, count) * rng.integers(5, 50, count)
    tokens[:2] = 7, 11
    return {
        "accuracy": np.stack([rng.integers(0, 2, count), np.ones(count)], axis=1).astype(float),
        "entropy": np.stack([tokens * rng.random(count), tokens], axis=1),
    }


def literal_draws(count: int, seed: int, resamples: int) -> list[list[int]]:
    """Which questions each resample consists of."""
    return np.random.default_rng(seed).integers(count, size=(resamples, count)).tolist()


def literal_ratio(array: np.ndarray, drawn: list[int]) -> float:
    above = below = 0.0
    for question in drawn:
        above += array[question][0]
        below += array[question][1]
    return above / below if below else float("nan")


@pytest.mark.parametrize("count", [2, 7, 40])
def test_intervals_are_those_of_a_literal_bootstrap(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "_CHUNK", 7 * count + 3)  # several chunks draw what one would
    ratios = questions(count, seed=count)
    found = figures(ratios, seed=5, resamples=200)
    draws = literal_draws(count, 5, 200)
    for name, array in ratios.items():
        values = [literal_ratio(array, drawn) for drawn in draws]
        assert found[name].value == pytest.approx(literal_ratio(array, list(range(count))))
        expected = np.nanpercentile(values, [2.5, 97.5])
        assert [found[name].low, found[name].high] == pytest.approx(expected, abs=1e-12)


def test_differences_resample_the_same_questions() -> None:
    first, second = questions(30, seed=1), questions(30, seed=2)
    found = differences(first, second, seed=9, resamples=300)
    draws = literal_draws(30, 9, 300)
    for name in first:
        values = [literal_ratio(second[name], drawn) - literal_ratio(first[name], drawn) for drawn in draws]
        expected = np.nanpercentile(values, [2.5, 97.5])
        assert [found[name].low, found[name].high] == pytest.approx(expected, abs=1e-12)
    same = differences(first, first, seed=9, resamples=300)
    assert all((figure.value, figure.low, figure.high) == (0, 0, 0) for figure in same.values())


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(0), 0
    for trial in range(300):
        answers = (rng.random(120) < 0.3).astype(float)
        figure = figures({"a": np.stack([answers, np.ones(120)], axis=1)}, seed=trial, resamples=400)["a"]
        assert figure.low is not None and figure.high is not None
        held += figure.low <= 0.3 <= figure.high
    assert 0.90 <= held / 300 <= 0.98


def test_what_was_not_measured_is_absent() -> None:
    nothing = np.zeros((3, 2))
    some = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    assert set(figures({"none": nothing, "some": some}, seed=0)) == {"some"}
    assert set(differences({"none": nothing, "some": some}, {"none": some, "some": some}, seed=0)) == {"some"}
    assert figures({}, seed=0) == {} and differences({}, {}, seed=0) == {}
    one = figures({"some": some[:1]}, seed=0)["some"]
    assert (one.value, one.low, one.high) == (1.0, None, None)  # one question says nothing of the spread
    alone = np.array([[4.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    found = figures({"alone": alone, "some": some}, seed=0)["alone"]
    assert (found.value, found.low, found.high) == (2.0, None, None)  # nor does one that was measured among others


@tries(60)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=11))
def test_mcnemar_is_the_share_of_coin_tosses_that_are_as_far_apart(pairs: list[tuple[bool, bool]]) -> None:
    first, second = zip(*pairs, strict=True)
    apart = [b for a, b in pairs if a != b]
    seen = abs(2 * sum(apart) - len(apart))
    tosses = list(itertools.product((0, 1), repeat=len(apart)))
    expected = sum(abs(2 * sum(toss) - len(toss)) >= seen for toss in tosses) / len(tosses)
    assert mcnemar(first, second) == pytest.approx(expected)


def test_mcnemar_of_thousands_of_questions() -> None:
    first, second = np.zeros(5000, bool), np.zeros(5000, bool)
    first[:2100], second[2100:4400] = True, True
    assert 0.0 < mcnemar(first, second) < 0.01
