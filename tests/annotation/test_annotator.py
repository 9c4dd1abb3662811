"""The annotator against a literal loop on scripted models: planted critical tokens, ties, EOS, budgets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from scripted import EOS, VOCABULARY, HashModel, SumJudge, decode, ended, literal_greedy, literal_mask, sum_verdict

from openrlhf_cft.annotation import rollouts
from openrlhf_cft.annotation.annotator import Annotator, Outcome, Status
from openrlhf_cft.annotation.criterion import candidates, is_critical
from openrlhf_cft.annotation.settings import AnnotateSettings, Question
from openrlhf_cft.data.records import Verdict
from openrlhf_cft.engine.generate import Generation, Sampling
from openrlhf_cft.errors import EngineError, InputError
from openrlhf_cft.verify import Judgement

PROMPT = [1, 2, 3]


def annotate(model: HashModel, answer: str, settings: AnnotateSettings) -> Outcome:
    return asyncio.run(Annotator(model, SumJudge(), decode, settings).annotate(Question(PROMPT, answer)))


def literal(
    model: HashModel, answer: str, k: int, budget: int, given: list[int] | None = None
) -> tuple[list[int], list[float], Counter[str]]:
    """The slow reference, judged as `SumJudge` does."""
    return literal_mask(model, PROMPT, k, budget, lambda text: sum_verdict(text, answer) is Verdict.CORRECT, given)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_masks_equal_the_literal_ones_whatever_is_skipped(k: int) -> None:
    seen: Counter[str] = Counter()
    annotated = 0
    for seed in range(300):
        model, answer, budget = HashModel(seed), str(seed % 3), 4 + seed % 9
        outcome = annotate(model, answer, AnnotateSettings(k, budget))
        response = literal_greedy(model, PROMPT, budget)
        assert outcome.response_token_ids == response
        correct = sum_verdict(decode(response), answer) is Verdict.CORRECT
        if response[-1] != EOS or not correct:
            assert outcome.status is (Status.CUT_OFF if response[-1] != EOS else Status.WRONG)
            assert outcome.critical_mask == [] and outcome.alternatives == []
            continue
        annotated += 1
        _, mask, cases = literal(model, answer, k, budget)
        seen += cases
        exhaustive = annotate(model, answer, AnnotateSettings(k, budget, exhaustive=True))
        assert outcome.critical_mask == exhaustive.critical_mask == mask
        assert not any(a.skipped for position in exhaustive.alternatives for a in position)
        assert outcome.rollouts <= exhaustive.rollouts == (k - 1) * len(mask)
        seen["skipped"] += exhaustive.rollouts - outcome.rollouts
        seen["critical"] += int(sum(mask))
        seen["not critical"] += int(len(mask) - sum(mask))
    assert annotated > 30
    for case in ("tie", "eos", "budget", "no budget at all", "critical", "not critical"):
        assert seen[case] > 0, f"no scripted model has the case {case!r}, so nothing was tested"
    assert (seen["skipped"] > 0) == (k > 2)


@pytest.mark.parametrize("k", [2, 3])
def test_masks_with_stop_strings_equal_the_literal_ones(k: int) -> None:
    """Also where a string begins before the changed token and ends behind it, which an engine does not see."""
    seen: Counter[str] = Counter()
    stop, annotated = ("3 1", "5 2 "), 0
    for seed in range(400):
        model, answer, budget = HashModel(seed), str(seed % 3), 6 + seed % 9
        outcome = annotate(model, answer, AnnotateSettings(k, budget, stop=stop))
        response = literal_greedy(model, PROMPT, budget, stop)
        assert outcome.response_token_ids == response
        if not ended(response, stop):
            assert outcome.status is Status.CUT_OFF
        elif sum_verdict(decode(response), answer) is Verdict.CORRECT:
            annotated += 1
            correct = lambda text, answer=answer: sum_verdict(text, answer) is Verdict.CORRECT  # noqa: E731
            _, mask, cases = literal_mask(model, PROMPT, k, budget, correct, stop=stop)
            assert outcome.critical_mask == mask
            seen += cases + Counter(response_stopped=response[-1] != EOS)
    assert annotated > 30
    for case in ("stop", "stop at once", "stop over the edge", "budget", "eos", "response_stopped"):
        assert seen[case] > 0, f"no scripted model has the case {case!r}, so nothing was tested"


def test_a_given_response_ends_with_its_first_stop_string() -> None:
    settings = AnnotateSettings(2, 9, stop=("5 2",))
    annotator = Annotator(HashModel(1), SumJudge(), decode, settings)
    outcome = asyncio.run(annotator.annotate(Question(PROMPT, "1"), [5, 2, 5, 2, 3, EOS]))
    assert (outcome.response_token_ids, outcome.response) == ([5, 2], "5 2")
    outcome = asyncio.run(annotator.annotate(Question(PROMPT, "1"), [5, 2, *[3] * 20, EOS]))
    assert outcome.status is not Status.CUT_OFF and outcome.response_token_ids == [5, 2], "it ends within the budget"
    with pytest.raises(InputError, match=r"--annotate\.stop: '' would end"):
        AnnotateSettings(stop=("",))


@pytest.mark.parametrize("k", [2, 3])
def test_masks_of_given_responses_equal_the_literal_ones(k: int) -> None:
    """Responses that are not the model's own: its first choice is then an alternative too, with rank 1."""
    annotated = first_choices = 0
    for seed in range(300):
        model, answer, budget = HashModel(seed), str(seed % 3), 5 + seed % 5
        given = [1 + (seed + 3 * i) % (VOCABULARY - 1) for i in range(1 + seed % 5)] + [EOS]
        annotator = Annotator(model, SumJudge(), decode, AnnotateSettings(k, budget))
        outcome = asyncio.run(annotator.annotate(Question(PROMPT, answer), given))
        if len(given) > budget or sum_verdict(decode(given), answer) is not Verdict.CORRECT:
            assert outcome.status is (Status.CUT_OFF if len(given) > budget else Status.WRONG)
            continue
        annotated += 1
        assert (outcome.status, outcome.response_token_ids) == (Status.ANNOTATED, given)
        _, mask, _ = literal(model, answer, k, budget, given)
        assert outcome.critical_mask == mask
        assert outcome.decoded_tokens == sum(a.rollout_length for p in outcome.alternatives for a in p)
        first_choices += sum(position[0].rank == 1 for position in outcome.alternatives)
    assert annotated > 30 and first_choices > 30


def test_a_given_response_that_leaves_no_room() -> None:
    annotator = Annotator(HashModel(1, max_model_len=8), SumJudge(), decode, AnnotateSettings())
    assert asyncio.run(annotator.annotate(Question(PROMPT, "1"), [1, 2, 3, 4, EOS])).status is Status.TOO_LONG


class Planted:
    """Greedy is 1 2 3 EOS. Only at the second token does every alternative end wrong; the last ones end it early."""

    stop_token_ids = frozenset([EOS])
    max_model_len = 50

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
        out = {(): [1, 2, 3, EOS], (4,): [2, 3, EOS], (1, 5): [5, EOS], (1, 6): [5, EOS], (1, 2, 4): [3, EOS]}.get(
            tuple(token_ids[len(PROMPT) :]), [5] * 99
        )[: sampling.max_tokens]
        tops = [[(1, -0.1), (4, -1.0), (5, -2.0)], [(6, -1.0), (2, -0.1), (5, -1.0)]]
        tops += [[(3, -0.1), (EOS, -1.0), (4, -3.0)], [(EOS, -0.1), (5, -1.0), (6, -2.0)]]
        return Generation(out, out[-1] == EOS, [], tops if sampling.top_logprobs else [])

    async def score(self, token_ids: Sequence[int], start: int, top_logprobs: int) -> Generation:
        raise NotImplementedError


class LastThree:
    """Correct where the response ends with 3."""

    async def judge(self, response: str, answer: str, prompt: str) -> Judgement:
        return Judgement(Verdict.CORRECT if response.endswith("3") else Verdict.WRONG)

    async def accepts_gold(self, answer: str, prompt: str) -> bool:
        return True


def test_planted_critical_tokens_and_what_is_recorded_of_each_alternative() -> None:
    settings = AnnotateSettings(top_k=3, max_new_tokens=5)
    outcome = asyncio.run(Annotator(Planted(), LastThree(), decode, settings).annotate(Question(PROMPT, "3")))
    assert outcome.status is Status.ANNOTATED
    assert outcome.critical_mask == [0.0, 1.0, 0.0, 1.0]
    first, second, third, fourth = outcome.alternatives
    assert [(a.token_id, a.rank, a.verdict, a.skipped) for a in first] == [
        (4, 2, Verdict.CORRECT, False),
        (5, 3, None, True),
    ]
    assert [(a.token_id, a.rank, a.rollout_length) for a in second] == [(5, 2, 2), (6, 3, 2)]  # a tie: the smaller id
    assert (third[0].token_id, third[0].verdict, third[0].rollout_length) == (EOS, Verdict.WRONG, 0)
    assert third[0].truncated is False and third[1].verdict is Verdict.CORRECT
    # At the last position 5 5 5 ... has one token of the budget left, and is cut off there.
    assert [(a.verdict, a.truncated, a.rollout_length) for a in fourth] == [(Verdict.TRUNCATED, True, 1)] * 2


def test_ids_without_text_are_no_alternatives() -> None:
    """A padded vocabulary: the best id but one and the last are not the tokenizer's."""

    class Padded(Planted):
        async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
            generation = await super().generate(token_ids, sampling)
            top_logprobs = [[(97, -0.2), *top, (98, -9.0)] for top in generation.top_logprobs]
            return replace(generation, top_logprobs=top_logprobs)

    settings = AnnotateSettings(top_k=3, max_new_tokens=5)
    outcomes = [
        asyncio.run(annotator.annotate(Question(PROMPT, "3")))
        for annotator in (
            Annotator(Planted(), LastThree(), decode, settings),
            Annotator(Padded(), LastThree(), decode, settings, vocabulary=range(10)),
        )
    ]
    assert [outcome.passed_over for outcome in outcomes] == [0, 4]
    assert outcomes[1] == replace(outcomes[0], passed_over=4)


def test_the_text_of_a_rollout_is_kept_where_it_is_asked_for() -> None:
    kept = 0
    for seed in range(60):
        model, answer = HashModel(seed), str(seed % 3)
        plain, texts = (annotate(model, answer, AnnotateSettings(3, 9, keep_rollouts=keep)) for keep in (False, True))
        assert plain.critical_mask == texts.critical_mask
        for position, alternatives in enumerate(texts.alternatives):
            for found in alternatives:
                prefix = [*PROMPT, *texts.response_token_ids[:position], found.token_id]
                budget = 9 - position - 1
                ended_at_once = found.token_id == EOS or not budget
                rest = [] if ended_at_once else literal_greedy(model, prefix, budget)
                assert found.text == (None if found.skipped else decode(rest))
                kept += not found.skipped
        assert all(found.text is None for alternatives in plain.alternatives for found in alternatives)
    assert kept > 30


def test_a_cut_off_rollout_is_verified_as_it_stands() -> None:
    class RightButEndless(Planted):
        async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
            got = await super().generate(token_ids, sampling)
            return got if got.stopped else Generation([3] * len(got.token_ids), False, [], [])

    settings = AnnotateSettings(top_k=2, max_new_tokens=6)
    outcome = asyncio.run(Annotator(RightButEndless(), LastThree(), decode, settings).annotate(Question(PROMPT, "3")))
    last = outcome.alternatives[-1][0]
    assert (last.verdict, last.truncated) == (Verdict.CORRECT, True) and outcome.critical_mask[-1] == 0.0


def test_a_failing_engine_is_never_a_verdict() -> None:
    class Failing(Planted):
        async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
            if len(token_ids) > len(PROMPT) + 1:
                raise EngineError("out of memory")
            return await super().generate(token_ids, sampling)

    with pytest.raises(EngineError, match="out of memory"):
        asyncio.run(Annotator(Failing(), LastThree(), decode, AnnotateSettings()).annotate(Question(PROMPT, "3")))


def test_rows_that_cannot_be_annotated_say_why() -> None:
    class RefusesGold(LastThree):
        async def accepts_gold(self, answer: str, prompt: str) -> bool:
            return False

    long = [1] * Planted.max_model_len
    settings = AnnotateSettings()
    assert (
        asyncio.run(Annotator(Planted(), LastThree(), decode, settings).annotate(Question(long, "3"))).status
        is Status.TOO_LONG
    )
    refused = asyncio.run(Annotator(Planted(), RefusesGold(), decode, settings).annotate(Question(PROMPT, "?")))
    assert refused.status is Status.BAD_ANSWER


def test_candidates_of_a_token_that_is_not_the_first_choice() -> None:
    top = [(9, -3.0), (4, -1.0), (2, -1.0), (7, -0.5)]
    assert [(c.token_id, c.rank) for c in candidates(top, chosen=9, top_k=3)] == [(7, 1), (2, 2)]
    assert [(c.token_id, c.rank) for c in candidates(top, chosen=7, top_k=4)] == [(2, 2), (4, 3), (9, 4)]


def test_an_unmeasured_token_is_not_critical() -> None:
    with pytest.raises(ValueError, match="unmeasured"):
        is_critical([])


def test_rollouts_at_a_time_are_bounded_over_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the masks are the same."""
    monkeypatch.setattr(rollouts, "ROLLOUTS", 3)
    at_once: list[int] = []

    class Counting(HashModel):
        running = 0

        async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
            if sampling.top_logprobs:
                return await super().generate(token_ids, sampling)
            self.running += 1
            at_once.append(self.running)
            await asyncio.sleep(0)
            generation = await super().generate(token_ids, sampling)
            self.running -= 1
            return generation

    async def rows() -> list[Outcome]:
        limited = Annotator(Counting(5), SumJudge(), decode, AnnotateSettings(3, 12))
        return await asyncio.gather(*(limited.annotate(Question([*PROMPT, i % 7], str(i % 3))) for i in range(30)))

    outcomes = asyncio.run(rows())
    assert max(at_once) == 3 and sum(outcome.status is Status.ANNOTATED for outcome in outcomes) > 2
    unlimited = Annotator(HashModel(5), SumJudge(), decode, AnnotateSettings(3, 12))
    for i, outcome in enumerate(outcomes):
        assert outcome == asyncio.run(unlimited.annotate(Question([*PROMPT, i % 7], str(i % 3))))
