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
from ladder.base import BOUNDS, passed, show  # noqa: E402
from ladder.problems import MINUS, PLUS, SPLITS, STEPS, TIMES, rows  # noqa: E402
from ladder_settings import ladder  # noqa: E402

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


def said(sentence: str) -> tuple[str, dict[str, int]]:
    """The phrasing of a step, and its numbers."""
    (found,) = (
        (form, numbers) for form in PLUS + MINUS + TIMES if (numbers := numbers_of(form, sentence)) is not None
    )
    return found


def start_of(row: dict[str, Any]) -> int:
    (frame,) = (frame for frame in FRAMES if frame["name"] == row["frame"])
    numbers = numbers_of(frame["start"], re.split(r"(?<=[.?]) ", row["question"])[0])
    assert numbers is not None
    return numbers["n"]


def test_every_step_of_every_solution_is_right(problems: dict[str, list[dict[str, Any]]]) -> None:
    for row in everything(problems):
        *steps, last = row["response"].split(". ")
        assert len(steps) == row["steps"] and last == f"The answer is {row['answer']}."
        total = start_of(row)
        for form, numbers in (said(f"{step}.") for step in steps):
            if form in TIMES:
                assert numbers["a"] * numbers["b"] == numbers["c"]
            else:
                total += numbers["b"] if form in PLUS else -numbers["b"]
                assert numbers["c"] == total >= 0
        assert str(total) == row["answer"] and judge_math(row["response"], row["answer"]).score == 1


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
    words = [(name, r"\w+") for name in ("who", "friend", "unit")]
    for name, kind in [*words, *((name, rf"(?P<{name}>\d+)") for name in "nmabc")]:
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
    solutions = [[said(f"{step}.") for step in row["response"].split(". ")[:-1]] for row in problems["base"]]
    assert {form for solution in solutions for form, _ in solution} == set(PLUS + MINUS + TIMES)
    assert {row["steps"] for row in problems["base"]} == set(STEPS)
    moved = 0
    for row, solution in zip(problems["base"], solutions, strict=True):
        told = [str(numbers["b"]) for form, numbers in solution if form not in TIMES]
        asked = [number for number in re.findall(r"\d+", row["question"]) if number in told]
        moved += len(told) == len(asked) and told != asked
    assert moved > 20
    large = sum(int(number) > 99 for row in problems["base"] for number in re.findall(r"\d+", row["response"]))
    assert large > 50, "numbers of three digits"


def test_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    script = EVIDENCE / "ladder" / "problems.py"
    for name in ("a", "b"):
        command = [sys.executable, str(script), "--output_dir", str(tmp_path / name), "--base", "5", "--test", "4"]
        subprocess.run(command, check=True, timeout=300)
    files = [{file.name: file.read_text() for file in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert files[0] == files[1] and set(files[0]) == {"base.jsonl", "test.jsonl"}
    assert len(files[0]["base.jsonl"].splitlines()) == 5


def test_the_base_comes_before_the_gate(tmp_path: Path) -> None:
    sizes = ladder(tmp_path)
    names = [step.name for step in study.steps(sizes)]
    first = ["questions", *(f"base-{part}" for part in range(sizes.base_parts)), "gate"]
    assert names[: len(first)] == first and len(names) == len(set(names))
    assert len(sizes.questions("base").read_text().splitlines()) >= sizes.base_parts * sizes.base_part_rows
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


def test_more_of_a_split_changes_no_other(problems: dict[str, list[dict[str, Any]]]) -> None:
    """So a base that is trained longer is asked the same questions, and has begun with the same solutions."""
    more = defaultdict(list)
    for split, row in rows({**COUNTS, "base": 500}, seed=3):
        more[split].append(row)
    assert {split: more[split][: COUNTS[split]] for split in SPLITS} == dict(problems)
