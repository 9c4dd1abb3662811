"""Means over seeds: the interval holds the truth as often as it says."""

from __future__ import annotations

import random

import pytest

from openrlhf_cft.evaluation.seeds import mean_over_seeds, mean_text, paired_by_seed


def test_the_interval_of_five_seeds() -> None:
    found = mean_over_seeds([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found["mean"] == 3 and found["seeds"] == 5
    assert found["margin"] == pytest.approx(2.776 * (2.5 / 5) ** 0.5, abs=1e-9)
    assert mean_text(found) == "3.000 ± 1.963"


def test_one_seed_has_no_interval() -> None:
    assert mean_over_seeds([0.5]) == {"mean": 0.5, "seeds": 1}
    assert mean_text(mean_over_seeds([0.5])) == "0.500"
    with pytest.raises(ValueError, match="at least one value"):
        mean_over_seeds([])


@pytest.mark.parametrize("seeds", [2, 3, 5, 30])
def test_it_covers_the_truth_in_95_of_100_cases(seeds: int) -> None:
    chance = random.Random(seeds)
    covered = 0
    for _ in range(4_000):
        found = mean_over_seeds([chance.gauss(0.0, 1.0) for _ in range(seeds)])
        covered += abs(found["mean"]) <= found["margin"]
    assert 0.935 < covered / 4_000 < 0.975


def test_differences_are_paired_by_seed() -> None:
    assert paired_by_seed({2: 1.0, 1: 1.0}, {1: 3.0, 2: 5.0, 9: 0.0}) == [2.0, 4.0]
