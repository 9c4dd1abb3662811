"""The second study's comparison: its order, its choices, and what it counts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

EVIDENCE = Path(__file__).parents[2] / "examples" / "evidence"
sys.path.insert(0, str(EVIDENCE))

import study  # noqa: E402
from ladder import base, compare, rates, reinforcement, rejection  # noqa: E402
from ladder.base import BOUNDS, Ladder, passed, require_gate  # noqa: E402
from ladder_settings import ladder  # noqa: E402


def write_result(sizes: Ladder, name: str, found: dict[str, Any]) -> None:
    sizes.results.mkdir(parents=True, exist_ok=True)
    sizes.result_file(name).write_text(json.dumps(found))


def write_gate(sizes: Ladder, accuracy: float) -> None:
    values: dict[str, float | None] = {name: bound for name, _, bound in BOUNDS} | {"greedy accuracy": accuracy}
    write_result(sizes, "gate", {"values": values, "passed": list(passed(values))})


def let_pass(sizes: Ladder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of a base that is good enough."""
    monkeypatch.setattr(Ladder, "base", lambda _: "base")
    monkeypatch.setattr(base, "weights_fingerprint", lambda model: f"weights of {model}")
    write_result(
        sizes, f"base-{sizes.base_parts - 1}", {"precision": base.precision()[1], "weights": "weights of base"}
    )
    write_gate(sizes, 0.5)


def test_nothing_is_compared_on_a_base_that_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ladder(tmp_path)
    write_gate(sizes, 0.2)
    for step in study.steps(sizes):
        if step.name not in ("questions", "gate") and not step.name.startswith("base-"):
            with pytest.raises(SystemExit, match=r"does not pass the gate.*\n[^$]*0\.200, not kept"):
                step.make()
    let_pass(sizes, monkeypatch)
    require_gate(sizes)


@pytest.mark.parametrize("name", ["weights", "precision"])
def test_results_of_another_base_are_not_added_to(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ladder(tmp_path)
    let_pass(sizes, monkeypatch)
    made = sizes.result(f"base-{sizes.base_parts - 1}")
    write_result(sizes, f"base-{sizes.base_parts - 1}", {**made, name: "others"})
    with pytest.raises(SystemExit, match=f"about another base: its {name} are others, and here {made[name]}"):
        require_gate(sizes)


def test_an_arm_is_tested_after_all_of_its_rates(tmp_path: Path) -> None:
    """And before the next arm is trained, since checkpoints are large."""
    sizes = ladder(tmp_path)
    names = [step.name for step in study.steps(sizes)]
    after = names.index("horizon")
    for arm in sizes.arms:
        swept = [at for at, name in enumerate(names) if name.startswith(f"train-{arm.name}-")]
        swept.append(names.index(f"sweep-{arm.name}"))
        tested = [at for at, name in enumerate(names) if name.startswith((f"test-{arm.name}-", f"drawn-{arm.name}-"))]
        assert len(swept) == 3 * len(sizes.rates) + 1 and len(tested) == 2 * (5 if arm.many else 3)
        assert after < min(swept) and [*swept, *tested] == list(range(min(swept), max(tested) + 1)), arm.name


def test_the_rate_is_chosen_over_seeds(tmp_path: Path) -> None:
    sizes = ladder(tmp_path)
    arm = sizes.arms[0]
    right = {3e-5: (5, 5, 5), 1e-4: (9, 4, 2), 3e-4: (5, 6, 4)}  # of ten questions; 15 with every rate
    runs = {
        compare.run_name(rate, seed): {"greedy": "1" * count + "0" * (10 - count)}
        for rate, counts in right.items()
        for seed, count in enumerate(counts, 1)
    }
    write_result(sizes, f"sweep-{arm.name}", {"runs": runs})
    assert compare.best_rate(sizes, arm) == 3e-5, "the smallest of equal ones"
    runs[compare.run_name(3e-4, 3)]["greedy"] = "1111100000"
    write_result(sizes, f"sweep-{arm.name}", {"runs": runs})
    assert compare.best_rate(sizes, arm) == 3e-4


def test_checkpoints_are_removed_but_those_that_grpo_starts_from(tmp_path: Path) -> None:
    sizes = ladder(tmp_path)
    arms = {arm.name: arm for arm in sizes.arms}
    for arm in (arms["sft"], arms["dft"]):
        folders = {
            rate: sizes.run_dir / "checkpoints" / f"{arm.name}-{compare.run_name(rate, 1)}" for rate in sizes.rates
        }
        for folder in folders.values():
            folder.mkdir(parents=True)
        compare.forget(sizes, arm, 1, kept=1e-4)
        assert [rate for rate, folder in folders.items() if folder.exists()] == [1e-4] * (arm.name == "sft")


def test_phrasings_are_counted_among_correct_samples() -> None:
    def sample(row_id: str, text: str, verdict: str = "correct", greedy: bool = False) -> dict[str, Any]:
        return {"id": row_id, "response": text, "verdict": verdict, "greedy": greedy}

    two_of_three = [sample("a", "x"), sample("a", " x"), sample("a", "y"), sample("a", "z", "wrong")]
    greedy_is_none = [sample("a", "w", greedy=True), sample("b", "x"), sample("b", "y", greedy=True)]
    one_text = [sample("c", "x"), sample("c", "x")]
    found = compare.phrasings([*two_of_three, *greedy_is_none, *one_text])
    assert found == {"questions": 2, "distinct": pytest.approx((2 / 3 + 1 / 2) / 2)}
    assert compare.phrasings(greedy_is_none) == {"questions": 0, "distinct": None}


def tried(verdict: str, correct: int) -> dict[str, Any]:
    """An alternative, sampled four times."""
    return {
        **{"token_id": 1, "rank": 2, "logprob": -1.0, "verdict": verdict, "rollout_length": 3},
        **{"truncated": False, "skipped": False, "score": None},
        "sampled": {"count": 4, "correct": correct, "score": None, "tokens": 9},
    }


def test_masks_of_greedy_rollouts_and_of_rates_are_compared() -> None:
    row = {
        "response_token_ids": [5, 6, 7, 8],
        "critical_mask": [1.0, 1.0, 0.0, 0.0],
        "alternatives": [
            [tried("wrong", 0), tried("wrong", 1)],  # critical, by both
            [tried("wrong", 0), tried("wrong", 2)],  # half of the samples are a success
            [tried("correct", 1), tried("wrong", 0)],  # the greedy rollout was lucky
            [],  # not tried
        ],
        "token_samples": [{"count": 4, "correct": 4}, {"count": 4, "correct": 2}, None, None],
    }
    found = rates.horizon_of([row, row])
    assert found["critical"] == {"greedy": 4, "sampled": 4, "both": 2}
    assert (found["rows"], found["tokens"], found["own_rate"]) == (2, 8, 0.75)
    assert found["verdicts"] == {
        **{"alternatives": 12, "agreement": 8 / 12, "only_greedy_correct": 2, "only_sampled_correct": 2}
    }


def test_few_some_and_many_steps_are_rated_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ladder(tmp_path)
    asked = list(map(json.loads, sizes.questions("train").open()))
    right = {row["id"] for row in asked[::3]}
    monkeypatch.setattr(rates, "read_rows", lambda file, _: [{"id": row_id} for row_id in right])
    chosen = rates.chosen(sizes, 30)
    assert {row["id"] for row in chosen} <= right and len(chosen) == 30
    for low, high in rates.STRATA:
        assert sum(low <= row["steps"] <= high for row in chosen) == 10
    fewer = {row["id"] for row in rates.chosen(sizes, 6)}
    assert fewer < {row["id"] for row in chosen}, "those of the long horizon are among those of the weights"


def test_grpo_goes_on_from_part_to_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part asks the same command for one episode more, at the rate that was best in the run that is tried."""
    sizes = ladder(tmp_path)
    asked: list[tuple[Path, Path, dict[str, object], int]] = []

    def grpo(
        _: Ladder, name: str, start: Path, out: Path, sizes: dict[str, object], questions: int, *flags: object
    ) -> Any:
        asked.append((start, out, sizes, questions))
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.json").touch()
        return {}

    def evaluate(_: Ladder, name: str, checkpoint: Path, data: str, *more: object) -> dict[str, Any]:
        return {"figures": {"accuracy": 0.6 if "3e-06" in str(checkpoint) else 0.5}, "data": data}

    monkeypatch.setattr(reinforcement, "grpo", grpo)
    monkeypatch.setattr(reinforcement, "evaluate", evaluate)
    monkeypatch.setattr(reinforcement, "checkpoint_of", lambda _, arm, rate, seed: Path(f"{arm.name}-{rate:g}-{seed}"))
    monkeypatch.setattr(reinforcement, "best_rate", lambda _, arm: 1e-4)
    let_pass(sizes, monkeypatch)
    steps = [step for step in study.steps(sizes) if step.name.startswith("rl-")]
    for step in steps:
        write_result(sizes, step.name, step.make())
    assert len(steps) == 4 * (2 + 2 * 5) + 2 * 5 and len(asked) == 4 * (2 + 2 * 5 - 1), "SFT's first seed was tried"
    assert {questions for *_, questions in asked} == {50}
    for at in range(0, len(asked), 4):
        starts, folders, variables, _ = zip(*asked[at : at + 4], strict=True)
        assert len(set(starts)) == len(set(folders)) == 1
        assert [sizes["EPISODES"] for sizes in variables] == [1, 2, 3, 4] and {s["SAVE"] for s in variables} == {25}
    assert {sizes["LR"] for *_, sizes, _ in asked[8:]} == {3e-6}
    assert asked[8][0] == Path("cft3-0.0001-1") and asked[-1][0] == Path("cft3-0.0001-5")
    assert sizes.result("rl-drawn-sft-1")["data"] == "drawn" and sizes.result("rl-sft-1-3")["validation"]
    assert "validation" not in sizes.result("rl-sft-2-3"), "only what is tried is chosen among"
    assert not list(sizes.run_dir.glob("rl-*")), "their models are large"


def test_a_question_gives_rejection_sampling_one_correct_response(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At random among those that the tokens of the masks pay for."""
    sizes = ladder(tmp_path, train=40, parts=2)
    write_result(sizes, "base-validation", {"figures": {"sampled_length": 10.0}})
    write_result(sizes, "annotate-0", {"rollout_tokens": 400})
    write_result(sizes, "annotate-1", {"rollout_tokens": 400})
    asked: list[tuple[str, int]] = []

    def evaluate(_: Ladder, name: str, checkpoint: object, data: str, drawn: int, *flags: object) -> None:
        asked.append((data, drawn))

    def responses(study: Ladder, name: str, data: str) -> list[dict[str, Any]]:
        ids = [json.loads(line)["id"] for line in study.questions(data).open()]
        drawn = [(row_id, number) for row_id in ids for number in range(3)]
        return [
            {
                **{"id": row_id, "number": number, "response": f"{row_id} {number}", "length": 10, "stopped": True},
                **{"verdict": "wrong" if row_id == ids[0] else "correct", "greedy": number == 2},
            }
            for row_id, number in drawn
        ]

    monkeypatch.setattr(rejection, "evaluate", evaluate)
    monkeypatch.setattr(rejection, "responses", responses)
    monkeypatch.setattr(Ladder, "base", lambda _: "m")
    found = [rejection.rejection_part(sizes, part) for part in range(2)]
    assert asked == [("train-0", 3), ("train-1", 3)]  # 1.1 x 400 tokens / (20 questions x 10 tokens)
    assert all((part["rows"], part["decoded_tokens"], part["correct"]) == (19, 400, 38) for part in found)
    assert rejection.rejection_rows(sizes) == {"rows": 38}
    rows = pq.read_table(sizes.results / "rejection.parquet").to_pylist()
    assert len({row["id"] for row in rows}) == 38 and all(row["response"].startswith(row["id"]) for row in rows)
    assert {row["response"][-1] for row in rows} == {"0", "1"}, "a greedy response is no sample"
