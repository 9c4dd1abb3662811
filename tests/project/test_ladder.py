"""The second study's word problems: right, varied and disjoint; and its gate."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

EVIDENCE = Path(__file__).parents[2] / "examples" / "evidence"
sys.path.insert(0, str(EVIDENCE))

import study  # noqa: E402
from ladder import compare, rates  # noqa: E402
from ladder.base import BOUNDS, Ladder, ladder_flags, passed, require_gate, show  # noqa: E402
from ladder.problems import MINUS, PLUS, SPLITS, STEPS, TIMES, rows  # noqa: E402

from openrlhf_cft.verify.math import judge_math  # noqa: E402

COUNTS = {"base": 400, "train": 300, "validation": 200, "test": 300}
FRAMES = json.loads((EVIDENCE / "ladder" / "frames.json").read_text())


@pytest.fixture(scope="module")
def problems() -> dict[str, list[dict[str, Any]]]:
    """Problems of every split."""
    made = defaultdict(list)
    for split, row in rows(COUNTS, seed=3):
        made[split].append(row)
    return made


def everything(problems: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [row for split in SPLITS for row in problems[split]]


def calculation(sentence: str) -> bool:
    """Whether a step's three numbers fit, by the words of its phrasing."""
    numbers = [int(word) for word in re.findall(r"\d+", sentence)]
    kinds = {"x": TIMES, "+": PLUS, "-": MINUS}
    (kind,) = {
        sign
        for sign, phrasings in kinds.items()
        for phrasing in phrasings
        if re.fullmatch(re.sub(r"\\{\w+\\}", r"\\w+", re.escape(phrasing)), sentence)
    }
    found = re.fullmatch(r".*?(\d+) [-+x] (\d+) = (\d+).*", sentence)
    if found:
        first, second, result = map(int, found.groups())
    elif sentence.startswith(("Adding", "Taking")):
        second, first, result = numbers
    else:
        first, second, result = numbers
    return result == {"x": first * second, "+": first + second, "-": first - second}[kind]


def test_every_step_of_every_solution_is_right(problems: dict[str, list[dict[str, Any]]]) -> None:
    for row in everything(problems):
        *steps, last = row["response"].split(". ")
        assert len(steps) == row["steps"] and last == f"The answer is {row['answer']}."
        assert all(calculation(f"{step}.") for step in steps), row["response"]
        assert judge_math(row["response"], row["answer"]).score == 1


def test_the_story_leads_to_the_answer(problems: dict[str, list[dict[str, Any]]]) -> None:
    """Read back from its sentences by the frame's own: what is in none of them does not matter."""
    frames = {frame["name"]: frame for frame in FRAMES}
    distracted = 0
    for row in everything(problems):
        frame = frames[row["frame"]]
        kinds = {kind: frame[kind] for kind in ("gain", "loss", "packs_gain", "packs_loss", "noise")}
        first, *sentences = re.split(r"(?<=[.?]) ", row["question"])
        total = numbers_of(frame["start"], first)["n"]
        for sentence in sentences[:-1]:
            found = [
                (kind, numbers)
                for kind, forms in kinds.items()
                for form in forms
                if (numbers := numbers_of(form, sentence)) is not None
            ]
            assert len(found) == 1, (sentence, found)
            kind, numbers = found[0]
            distracted += kind == "noise"
            amount = 0 if kind == "noise" else numbers["n"] * numbers.get("m", 1)
            total += amount if kind.endswith("gain") else -amount
            assert 0 < total < 1000
        assert str(total) == row["answer"]
    assert 0.2 < distracted / len(everything(problems)) < 0.4


def numbers_of(form: str, sentence: str) -> dict[str, int] | None:
    """The numbers of a sentence that has this form; None if it has another."""
    pattern = re.escape(form)
    for name, kind in (("who", r"\w+"), ("friend", r"\w+"), ("n", r"(?P<n>\d+)"), ("m", r"(?P<m>\d+)")):
        pattern = pattern.replace(re.escape(f"{{{name}}}"), kind)
    found = re.fullmatch(pattern, sentence)
    return None if found is None else {name: int(value) for name, value in found.groupdict().items()}


def test_splits_share_neither_stories_nor_numbers(problems: dict[str, list[dict[str, Any]]]) -> None:
    assert len(FRAMES) >= 20 and len({frame["name"] for frame in FRAMES}) == len(FRAMES)
    frames = {split: {row["frame"] for row in own} for split, own in problems.items()}
    assert all(not frames[a] & frames[b] for a in SPLITS for b in SPLITS if a != b)
    assert {split: len(own) for split, own in problems.items()} == COUNTS
    asked = Counter(row["question"] for row in everything(problems))
    assert max(asked.values()) == 1


def test_solutions_are_diverse(problems: dict[str, list[dict[str, Any]]]) -> None:
    """In every phrasing, in other orders than the story's, and of every length."""
    assert min(len(PLUS), len(MINUS), len(TIMES)) >= 6
    seen = Counter(re.sub(r"\d+", "0", step) for row in problems["base"] for step in row["response"].split(". ")[:-1])
    assert len({re.sub(r"0 [a-z]+$|0 [a-z]+,", "0", form) for form in seen}) >= len(PLUS + MINUS + TIMES) - 3
    assert {row["steps"] for row in problems["base"]} == set(STEPS)
    moved = sum(
        re.findall(r"\d+", row["response"])[0] not in re.findall(r"\d+", row["question"])[:3]
        for row in problems["base"]
    )
    assert moved > 10


def test_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    script = EVIDENCE / "ladder" / "problems.py"
    for name in ("a", "b"):
        command = [sys.executable, str(script), "--output_dir", str(tmp_path / name), "--base", "5", "--test", "4"]
        subprocess.run(command, check=True, timeout=300)
    files = [{file.name: file.read_text() for file in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert files[0] == files[1] and set(files[0]) == {"base.jsonl", "test.jsonl"}
    assert len(files[0]["base.jsonl"].splitlines()) == 5


def ladder(folder: Path) -> Ladder:
    flags = study.parser()
    ladder_flags(flags)
    own = vars(flags.parse_args([]))
    for name in ("minutes", "study"):
        own.pop(name)
    return Ladder(**{**own, "run_dir": folder / "run", "results": folder / "results", "base_rows": 50})


def test_the_base_comes_before_the_gate(tmp_path: Path) -> None:
    sizes = ladder(tmp_path)
    names = [step.name for step in study.steps(sizes)]
    first = ["questions", *(f"base-{part}" for part in range(sizes.base_parts)), "gate"]
    assert names[: len(first)] == first and len(names) == len(set(names))
    assert len(sizes.questions("base").read_text().splitlines()) == 50
    assert len(sizes.questions("gate").read_text().splitlines()) == 128
    assert sizes.questions("gate").read_text() in sizes.questions("validation").read_text()


def test_each_bound_of_the_gate_counts() -> None:
    values: dict[str, float | None] = {name: bound for name, _, bound in BOUNDS}
    values["greedy accuracy"] = 0.5
    assert all(passed(values))
    for number, (name, side, bound) in enumerate(BOUNDS):
        missed = {**values, name: bound - 0.01 if side == ">=" else bound + 0.01}
        kept = list(passed(missed))
        assert [at for at, one in enumerate(kept) if not one] == [number]
        table = show({"passed": kept, "values": missed})
        assert table.count("not kept") == 1
    unknown = {**values, "critical share": None}
    assert "| critical share | <= 0.15 | not known, not kept |" in show(
        {"passed": list(passed(unknown)), "values": unknown}
    )


def write_result(sizes: Ladder, name: str, found: dict[str, Any]) -> None:
    sizes.results.mkdir(parents=True, exist_ok=True)
    sizes.result_file(name).write_text(json.dumps(found))


def test_nothing_is_compared_on_a_base_that_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ladder(tmp_path)
    values: dict[str, float | None] = {name: bound for name, _, bound in BOUNDS} | {"greedy accuracy": 0.2}
    write_result(sizes, "gate", {"values": values, "passed": list(passed(values))})
    for step in study.steps(sizes):
        if step.name not in ("questions", "gate") and not step.name.startswith("base-"):
            with pytest.raises(SystemExit, match=r"does not pass the gate.*\n[^$]*0\.200, not kept"):
                step.make()
    values["greedy accuracy"] = 0.5
    write_result(sizes, "gate", {"values": values, "passed": list(passed(values))})
    require_gate(sizes)


def test_an_arm_is_tested_after_all_of_its_rates(tmp_path: Path) -> None:
    """And before the next arm is trained, since checkpoints are large."""
    sizes = ladder(tmp_path)
    names = [step.name for step in study.steps(sizes)]
    after = names.index("horizon")
    for arm in sizes.arms:
        swept = [at for at, name in enumerate(names) if name.startswith(f"sweep-{arm.name}-")]
        tested = [at for at, name in enumerate(names) if name.startswith(f"test-{arm.name}-")]
        assert len(swept) == 3 * len(sizes.rates) and len(tested) == (5 if arm.many else 3)
        assert after < min(swept) and [*swept, *tested] == list(range(min(swept), max(tested) + 1)), arm.name


def test_the_rate_is_chosen_over_seeds(tmp_path: Path) -> None:
    sizes = ladder(tmp_path)
    arm = sizes.arms[0]
    accuracies = {3e-5: (0.5, 0.5, 0.5), 1e-4: (0.9, 0.4, 0.2), 3e-4: (0.5, 0.6, 0.4)}  # means 0.5, 0.5, 0.5
    for rate, found in accuracies.items():
        for seed, accuracy in enumerate(found, 1):
            name = compare.sweep_name(arm, rate, seed)
            write_result(sizes, name, {"rate": rate, "figures": {"accuracy": accuracy}})
    assert compare.best_rate(sizes, arm) == 3e-5, "the smallest of equal ones"
    write_result(sizes, compare.sweep_name(arm, 3e-4, 3), {"rate": 3e-4, "figures": {"accuracy": 0.41}})
    assert compare.best_rate(sizes, arm) == 3e-4


def test_checkpoints_are_removed_but_those_that_grpo_starts_from(tmp_path: Path) -> None:
    sizes = ladder(tmp_path)
    arms = {arm.name: arm for arm in sizes.arms}
    for arm in (arms["sft"], arms["dft"]):
        folders = {rate: sizes.run_dir / "checkpoints" / compare.sweep_name(arm, rate, 1) for rate in sizes.rates}
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
