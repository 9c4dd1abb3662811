"""`--annotate.samples` against success rates computed by following every possible continuation."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from family_models import FAMILIES, QUESTIONS
from scripted import EOS, SamplingModel, SumJudge, decode, sum_verdict
from table_model import without_engine

from openrlhf_cft.annotation.annotator import Annotator, Outcome, Status
from openrlhf_cft.annotation.job import annotate as annotate_all
from openrlhf_cft.annotation.row_worker import counters, to_payload
from openrlhf_cft.annotation.settings import AnnotateSettings, Question
from openrlhf_cft.annotation.summary import annotation_text
from openrlhf_cft.cli.annotate import job_of
from openrlhf_cft.data.records import ALTERNATIVES, MASK, RESPONSE_IDS, SAMPLED, Sampled, Verdict, read_rows
from openrlhf_cft.errors import InputError

PROMPT, BUDGET, TEMPERATURE = [1, 2, 3], 5, 0.7


def success(model: SamplingModel, begun: list[int], answer: str) -> float:
    """The probability that a response that begins like this ends correct: every continuation is followed."""
    if begun[-1] == EOS or len(begun) == BUDGET:
        return float(sum_verdict(decode(begun), answer) is Verdict.CORRECT)
    chances = model.probabilities([*PROMPT, *begun], TEMPERATURE)
    return sum(chance * success(model, [*begun, token], answer) for token, chance in enumerate(chances))


def annotate(model: SamplingModel, answer: str, settings: AnnotateSettings, row: str = "row") -> Outcome:
    return asyncio.run(Annotator(model, SumJudge(), decode, settings).annotate(Question(PROMPT, answer, "", row)))


def annotated(settings: AnnotateSettings, count: int) -> list[tuple[SamplingModel, str, Outcome]]:
    """The first models whose response is correct."""
    found = []
    for seed in range(400):
        model, answer = SamplingModel(seed), str(seed % 3)
        outcome = annotate(model, answer, settings)
        if outcome.status is Status.ANNOTATED:
            found.append((model, answer, outcome))
        if len(found) == count:
            return found
    raise AssertionError("too few responses are correct")


def measured(outcome: Outcome) -> list[tuple[list[int], Sampled]]:
    """Each token that was sampled, as the response up to it, with what was found."""
    response = outcome.response_token_ids
    found = []
    for position, (own, alternatives) in enumerate(zip(outcome.sampled, outcome.alternatives, strict=True)):
        found.append((response[: position + 1], own))
        for alternative in alternatives:
            assert (alternative.sampled is None) == alternative.skipped
            if alternative.sampled:
                found.append(([*response[:position], alternative.token_id], alternative.sampled))
    return found


def test_success_rates_are_those_of_following_every_continuation() -> None:
    settings = AnnotateSettings(3, BUDGET, exhaustive=True, samples=300, temperature=TEMPERATURE)
    deviations = []
    for model, answer, outcome in annotated(settings, 12):
        for begun, sampled in measured(outcome):
            chance = success(model, begun, answer)
            assert sampled.count == 300
            if chance in (0.0, 1.0):
                assert sampled.correct == chance * 300
            else:
                deviations.append((sampled.correct - 300 * chance) / math.sqrt(300 * chance * (1 - chance)))
    assert len(deviations) > 60
    assert max(map(abs, deviations)) < 4.5
    assert 0.7 < sum(deviation**2 for deviation in deviations) / len(deviations) < 1.4, "a binomial spread is 1"


def test_samples_change_nothing_else() -> None:
    settings = AnnotateSettings(3, BUDGET, samples=4, temperature=TEMPERATURE)
    skipped = 0
    for model, answer, outcome in annotated(settings, 30):
        plain = annotate(SamplingModel(model.seed), answer, AnnotateSettings(3, BUDGET))
        bare = [[replace(a, sampled=None) for a in position] for position in outcome.alternatives]
        assert replace(outcome, sampled=[], alternatives=bare) == plain
        assert outcome.decoded_tokens == model.decoded, "each decoded token is counted once"
        counted = counters(outcome)
        assert counted["samples"] == 4 * len(measured(outcome))
        assert counted["samples_correct"] == sum(sampled.correct for _, sampled in measured(outcome))
        assert "samples" not in counters(plain) and SAMPLED not in to_payload(plain)
        skipped += sum(a.skipped for position in outcome.alternatives for a in position)
    assert skipped > 0


def test_a_complete_response_is_not_continued() -> None:
    settings = AnnotateSettings(3, BUDGET, exhaustive=True, samples=5, temperature=TEMPERATURE)
    ends = 0
    for model, answer, outcome in annotated(settings, 30):
        asked = {prefix for prefix, _ in model.sampled}
        assert outcome.sampled[-1] == Sampled(5, 5, None, 0), "the response itself, which is correct"
        for begun, sampled in measured(outcome):
            complete = begun[-1] == EOS or len(begun) == BUDGET
            assert ((*PROMPT, *begun) in asked) != complete
            if complete:
                assert (sampled.correct, sampled.tokens) == (5 * success(model, begun, answer), 0)
                ends += 1
    assert ends > 40


def test_every_continuation_has_a_seed_of_its_own_and_keeps_it() -> None:
    settings = AnnotateSettings(3, BUDGET, samples=6, temperature=TEMPERATURE)
    ((model, answer, outcome),) = annotated(settings, 1)
    seeds = [sampling.seed for _, sampling in model.sampled]
    assert len(set(seeds)) == len(seeds) and None not in seeds
    budgets = {sampling.max_tokens + len(prefix) - len(PROMPT) for prefix, sampling in model.sampled}
    assert budgets == {BUDGET} and {sampling.temperature for _, sampling in model.sampled} == {TEMPERATURE}
    again = SamplingModel(model.seed)
    assert annotate(again, answer, settings) == outcome
    for other in (replace(settings, seed=43), settings):
        changed = SamplingModel(model.seed)
        annotate(changed, answer, other, "row" if other.seed == 43 else "another row")
        assert not {sampling.seed for _, sampling in changed.sampled} & set(seeds)


def test_settings_of_samples_are_recorded_only_with_samples() -> None:
    plain = AnnotateSettings().record()
    assert not {"samples", "temperature", "seed"} & set(plain)
    assert AnnotateSettings(temperature=0.5, seed=1).record() == plain, "they decide nothing"
    record = AnnotateSettings(samples=2, temperature=0.5, seed=1).record()
    assert record == {**plain, "samples": 2, "temperature": 0.5, "seed": 1}


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"samples": -1}, "--annotate.samples: -1"),
        ({"temperature": 0.0}, "--annotate.temperature: 0.0"),
        ({"temperature": math.nan}, "--annotate.temperature: nan"),
        ({"temperature": math.inf}, "--annotate.temperature: inf"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], told: str) -> None:
    with pytest.raises(InputError, match=told):
        AnnotateSettings(**settings)  # type: ignore[arg-type]


def test_an_annotation_has_them_in_its_files_and_summary(tmp_path: Path) -> None:
    """Beside masks that stay the same. A directory is not resumed with another number of samples."""
    family = FAMILIES["qwen"]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    keys = ["--data.dataset", str(tmp_path / "questions.jsonl"), "--data.input_key", "question"]
    flags = ["--model.model_name_or_path", str(family.write(tmp_path / "model")), *keys, "--data.label_key", "answer"]
    flags += ["--data.apply_chat_template", "--annotate.exhaustive", "--annotate.max_new_tokens", "12"]
    out, plain = (["--ckpt.output_dir", str(tmp_path / name)] for name in ("out", "plain"))
    with without_engine(family.table):
        summary = annotate_all(job_of([*flags, *out, "--annotate.samples", "40", "--annotate.temperature", "2"]))
        annotate_all(job_of([*flags, *plain]))
        with pytest.raises(InputError, match=r"holds another run \(decoding was .*'samples': 40"):
            annotate_all(job_of([*flags, *out, "--annotate.samples", "8", "--annotate.temperature", "2"]))
    found = list(read_rows(tmp_path / "out"))
    assert len(found) == 2
    for row, before in zip(found, read_rows(tmp_path / "plain"), strict=True):
        assert row[MASK] == before[MASK] and SAMPLED not in before
        assert len(row[SAMPLED]) == len(row[RESPONSE_IDS])
        assert {one["count"] for one in row[SAMPLED]} == {40} and row[SAMPLED][-1]["correct"] == 40
        assert row[SAMPLED][-2]["correct"] > row[SAMPLED][0]["correct"] > 0, "the nearer the end, the surer"
        assert all(alternative["sampled"]["count"] == 40 for one in row[ALTERNATIVES] for alternative in one)
    positions = summary["positions"]
    assert summary["samples"] == 40 * 3 * positions
    assert f"samples             {120 * positions}   (" in annotation_text(summary)
