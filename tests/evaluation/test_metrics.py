"""Figures against their definitions, absent ones, and samples there and back."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import tries

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.engine.generate import request_seed
from openrlhf_cft.evaluation.intervals import figures
from openrlhf_cft.evaluation.metrics import measure, pass_at_k, powers_of_two
from openrlhf_cft.evaluation.row_worker import EvaluateSettings, samplings
from openrlhf_cft.evaluation.samples import SampledQuestion, SampledResponse, from_row, to_payload


@tries(100)
@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 9))
def test_pass_at_k_is_the_share_of_k_subsets_with_a_correct_one(n: int, c: int, k: int) -> None:
    if c > n or k > n:
        assert k <= n or pass_at_k(n, min(c, n), k) is None
        return
    subsets = list(itertools.combinations(range(n), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(i < c for i in subset) for subset in subsets) / len(subsets))


def test_k_are_powers_of_two_and_all_samples() -> None:
    assert powers_of_two(0) == [] and powers_of_two(8) == [1, 2, 4, 8] and powers_of_two(6) == [1, 2, 4, 6]


def response(answer: str | None, correct: bool, tokens: list[int], stopped: bool = True) -> SampledResponse:
    verdict = Verdict.UNPARSABLE if answer is None else Verdict.CORRECT if correct else Verdict.WRONG
    return SampledResponse(f"it is {answer}", tokens, answer, verdict, float(correct), stopped)


def two_questions() -> list[SampledQuestion]:
    """One with samples 7 7 8 -, of which 7 is right; one whose samples are all alike and wrong."""
    mixed = [response("7", True, [5, 1]), response("7.0", True, [5, 6, 1])]
    mixed += [response("8", False, [8, 1]), response(None, False, [9, 9, 9, 9], stopped=False)]
    alike = [response("3", False, [3, 1])] * 4
    return [
        SampledQuestion("a", "7", response("7", True, [5, 1]), mixed),
        SampledQuestion("b", "4", response(None, False, [4, 4, 4], stopped=False), alike),
    ]


def test_every_figure_of_two_questions() -> None:
    measured = measure(two_questions(), 4)
    assert measured.ids == ["a", "b"]
    found = {name: figure.value for name, figure in figures(measured.ratios, seed=0).items()}
    expected = {
        "accuracy": 1 / 2,
        "pass@1": (2 / 4 + 0) / 2,
        "pass@2": (5 / 6 + 0) / 2,
        "pass@4": (1 + 0) / 2,
        "majority@2": ((1 + 2 * 0.5 + 2 * 1 + 0) / 6 + 0) / 2,  # 77, 78 78 tie, 7- 7-, 8-
        "majority@4": 1 / 2,
        "distinct_answers": (2 + 1) / 2,
        "distinct_1": (5 / 11 + 2 / 8) / 2,
        "distinct_2": (5 / 7 + 1 / 4) / 2,
        "distinct_3": 2 / 3,  # 561, 999 999; the other question's samples are too short to have any
        "greedy_length": 5 / 2,
        "greedy_cut_off": 1 / 2,
        "greedy_unparsable": 1 / 2,
        "sampled_length": 19 / 8,
        "sampled_cut_off": 1 / 8,
        "sampled_unparsable": 1 / 8,
    }
    assert found == pytest.approx(expected)


def test_what_was_not_measured_is_absent() -> None:
    greedy = [SampledQuestion(q.id, q.gold, q.greedy, []) for q in two_questions()]
    found = measure(greedy, 0).ratios
    assert set(found) == {"accuracy", "greedy_length", "greedy_cut_off", "greedy_unparsable"}
    silent = [response(None, True, [5, 1])] * 4  # a reward file: a verdict, and no answer
    asked = [SampledQuestion("a", "7", silent[0], silent)]
    found = measure(asked, 4, answers=False).ratios
    assert "pass@4" in found and not [name for name in found if "majority" in name or "distinct_answers" in name]
    assert measure([], 4).ratios == {}


def test_a_model_without_an_answer_has_none_right() -> None:
    mute = [response(None, False, [5, 1])] * 4
    found = measure([SampledQuestion("a", "7", mute[0], mute)], 4).ratios
    assert found["majority@4"].tolist() == [[0, 1]] and found["distinct_answers"].tolist() == [[0, 1]]


def test_a_response_goes_there_and_back() -> None:
    for question in two_questions():
        for one in [question.greedy, *question.samples]:
            assert from_row(to_payload(one)) == one


def test_each_sample_has_a_seed_of_its_own() -> None:
    seeds = {request_seed(seed, row, number) for seed in (1, 2) for row in ("a", "b") for number in range(8)}
    assert len(seeds) == 32 and request_seed(1, "a", 0) == request_seed(1, "a", 0)
    drawn = samplings(EvaluateSettings(3, temperature=0.6, top_p=0.9), "a", 50)
    assert [(s.max_tokens, s.temperature, s.top_p) for s in drawn] == [(50, 0.6, 0.9)] * 3
    assert len({s.seed for s in drawn}) == 3
