"""The estimate of a dry run against what the whole costs: on a scripted model, and on the quickstart's questions."""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from scripted import HashModel, SumJudge, decode
from test_end_to_end import finish, model

from openrlhf_cft.annotation.annotator import Annotator, Positions, Status, every_position
from openrlhf_cft.annotation.estimate import POSITIONS, estimate, estimate_text, sampled_positions
from openrlhf_cft.annotation.row_worker import counters, to_payload
from openrlhf_cft.annotation.settings import AnnotateSettings, Question

__all__ = ["model"]
PROMPTS, SAMPLE = 1_200, 400
COUNTS = ("positions", "rollouts", "decoded_tokens")
SETTINGS = AnnotateSettings(top_k=4, max_new_tokens=16)


def rows(positions: Positions, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Status and payload of the first prompts, as the worker writes them, each 0.1 s after the one before."""
    annotator = Annotator(HashModel(seed=3), SumJudge(), decode, SETTINGS, positions)
    questions = [Question([1 + n % 7, 1 + n // 7 % 7, 1 + n // 49 % 7, 1 + n // 343], "1") for n in range(count)]
    found = []
    for number, question in enumerate(questions):
        outcome = asyncio.run(annotator.annotate(question))
        payload = {
            **to_payload(outcome),
            "counts": counters(outcome),
            "timing": [number / 10, (number + 1) / 10],
            "engine": f"e{number % 4}",
        }
        found.append((outcome.status.value, payload))
    return found


def totals(whole: list[tuple[str, dict[str, Any]]]) -> dict[str, float]:
    sums = {name: sum(payload["counts"][name] for _, payload in whole) for name in ("positions", "rollouts")}
    sums["decoded_tokens"] = sum(payload["counts"]["decoded_tokens"] for _, payload in whole)
    return {**sums, "annotated": sum(status == Status.ANNOTATED.value for status, _ in whole)}


def test_the_interval_holds_the_whole() -> None:
    whole, sample = rows(every_position, PROMPTS), rows(sampled_positions, SAMPLE)
    longest = max(len(payload["critical_mask"]) for _, payload in whole)
    assert longest > 2 * POSITIONS and max(len(payload["critical_mask"]) for _, payload in sample) == POSITIONS
    found = estimate(sample, PROMPTS, gpus_per_engine=0, gpu_hour_cost=None)
    for name, exact in totals(whole).items():
        value, margin = found[name]
        assert abs(value - exact) <= margin < 0.25 * exact, (name, value, margin, exact)


def test_a_sample_of_everything_whose_responses_are_short_is_exact() -> None:
    short = [(status, p) for status, p in rows(every_position, 300) if len(p["critical_mask"]) <= POSITIONS]
    found = estimate(short, len(short), gpus_per_engine=0, gpu_hour_cost=None)
    for name, exact in totals(short).items():
        assert found[name] == pytest.approx([exact, 0.0])


def test_the_interval_is_as_wide_as_it_says() -> None:
    """Over many samples of rows and positions, about 95 of 100 intervals hold the whole."""
    whole, chance = rows(every_position, 200), random.Random(0)
    held: Counter[str] = Counter()
    samples = 400
    for _ in range(samples):
        sample = [(status, some_positions(payload, chance)) for status, payload in chance.sample(whole, 80)]
        found = estimate(sample, len(whole), gpus_per_engine=0, gpu_hour_cost=None)
        held.update(name for name, exact in totals(whole).items() if abs(found[name][0] - exact) <= found[name][1])
    assert all(0.90 < held[name] / samples < 0.98 for name in held), held


def some_positions(payload: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """The payload as if only `POSITIONS` of its positions had been annotated."""
    alternatives, counts = payload["alternatives"], payload["counts"]
    left = chance.sample(alternatives, min(POSITIONS, len(alternatives)))
    gone = sum(a["rollout_length"] for p in alternatives for a in p) - sum(
        a["rollout_length"] for p in left for a in p
    )
    decoded = {**counts, "decoded_tokens": counts["decoded_tokens"] - gone}
    return {**payload, "alternatives": left, "counts": decoded}


def test_hours_and_money() -> None:
    sample = rows(sampled_positions, 50)
    decoded = sum(payload["counts"]["decoded_tokens"] for _, payload in sample)
    found = estimate(sample, 5_000, gpus_per_engine=2, gpu_hour_cost=2.5)
    assert found["sampled_tokens_per_second"] == pytest.approx(decoded / 5.0)
    hours = found["decoded_tokens"][0] / (decoded / 5.0) / 3600
    assert found["engine_hours"][0] == pytest.approx(4 * hours)
    assert found["gpu_hours"][0] == pytest.approx(8 * hours)
    assert found["cost"][0] == pytest.approx(20 * hours)
    assert re.search(r"^cost +[\d.,]+ ± [\d.,]+ ", estimate_text(found), re.MULTILINE)


def test_a_sample_without_a_token_has_no_hours() -> None:
    empty = {"response_token_ids": [], "alternatives": [], "counts": dict.fromkeys(COUNTS, 0), "timing": [0.0, 1.0]}
    found = estimate([("bad_answer", {**empty, "engine": "e0"})] * 2, 10, gpus_per_engine=1, gpu_hour_cost=1.0)
    assert found["decoded_tokens"] == [0.0, 0.0] and "engine_hours" not in found
    assert "decoded tokens      0 ± 0" in estimate_text(found)


def test_nothing_to_estimate_from() -> None:
    with pytest.raises(ValueError, match="no row of the sample was finished"):
        estimate([], 10, gpus_per_engine=0, gpu_hour_cost=None)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--annotate.dry_run", "0"], "--annotate.dry_run: 0 must be at least 2"),
        (["--annotate.gpu_hour_cost", "2"], "--annotate.gpu_hour_cost: add --annotate.dry_run, which uses it"),
    ],
)
def test_flags_that_make_no_sense(flags: list[str], told: str) -> None:
    needed = ["--model.model_name_or_path", "x", "--data.dataset", "y", "--ckpt.output_dir", "z"]
    command = [sys.executable, "-m", "openrlhf_cft.cli.annotate", *needed, *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"annotate: {told}\n")


@pytest.mark.all
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_it_is_right_within_a_quarter_on_the_quickstarts_questions(model: Path, tmp_path: Path) -> None:
    finish(["examples/make_questions.py", "--output_dir", str(tmp_path), "--train", "160", "--test", "48"], 600)
    command = ["-m", "openrlhf_cft.cli.annotate", "--model.model_name_or_path", str(model)]
    command += ["--data.dataset", str(tmp_path / "train.jsonl"), "--data.input_key", "question"]
    command += ["--data.label_key", "answer", "--data.apply_chat_template", "--annotate.max_new_tokens", "48"]
    command += ["--ckpt.output_dir", str(tmp_path / "out")]
    print(finish([*command, "--annotate.dry_run"], 900))
    print(finish(command, 900))
    state = tmp_path / "out" / ".annotate"
    found = json.loads((state / "dry_run" / "estimate.json").read_text())
    summary = json.loads((state / "summary.json").read_text())
    for name in ("rollouts", "decoded_tokens"):
        assert abs(found[name][0] / summary[name] - 1) < 0.25, (name, found[name], summary[name])
