"""Pass@k against its definition, entropy on a known distribution, and absent figures."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from openrlhf_cft.evaluate.job import table
from openrlhf_cft.evaluate.metrics import mean_entropy, metrics, pass_at_k, powers_of_two
from openrlhf_cft.evaluate.worker import request_seed


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 6), (7, 1, 7), (8, 3, 4)])
def test_pass_at_k_is_the_share_of_k_subsets_with_a_correct_one(n: int, c: int, k: int) -> None:
    subsets = list(itertools.combinations(range(n), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(i < c for i in subset) for subset in subsets) / len(subsets))


def test_what_was_not_measured_is_absent() -> None:
    assert pass_at_k(4, 2, 5) is None
    assert mean_entropy([]) is None
    assert powers_of_two(0) == [] and powers_of_two(8) == [1, 2, 4, 8] and powers_of_two(6) == [1, 2, 4, 6]
    greedy = {"correct": True, "length": 3, "stopped": True, "logprob": 0.0}
    found = metrics([{"greedy": greedy, "samples": []}])
    assert found["accuracy"] == 1.0 and found["mean_entropy"] is None and not [k for k in found if "pass@" in k]
    assert "-" in table({"base": found})


def test_the_entropy_estimate_is_unbiased() -> None:
    rng, weights = random.Random(0), [0.5, 0.25, 0.125, 0.125]
    drawn = rng.choices(weights, weights, k=40_000)
    samples = [{"length": 4, "logprob": sum(map(math.log, drawn[i : i + 4]))} for i in range(0, len(drawn), 4)]
    assert mean_entropy(samples) == pytest.approx(1.75 * math.log(2), rel=0.01)


def test_each_sample_has_a_seed_of_its_own() -> None:
    seeds = {request_seed(seed, row, number) for seed in (1, 2) for row in ("a", "b") for number in range(8)}
    assert len(seeds) == 32 and request_seed(1, "a", 0) == request_seed(1, "a", 0)
