"""The second study on questions that somebody has: rows in GSM8K's and in SVAMP's form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ladder_settings import ladder, study

from ladder import compare, gsm8k  # isort: skip

SOLUTION = "She sold 1,200/2 = <<1200/2=600>>600 in May.\nSo 1,200+600 = <<1200+600=1800>>1,800.\n#### 1,800"


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """The folder that the script makes of 1,000 rows of one form and one of the other."""
    rows = [{"question": f"How many are {n}?", "answer": f"It is <<{n}*1={n}>>{n}.\n#### {n}"} for n in range(1000)]
    story = {"Body": "There are 87 oranges", "Question": "How many?", "Answer": 145.0}
    for name, found in (("train", rows), ("test", rows[:20]), ("other", [story])):
        (tmp_path / f"{name}-rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    flags = [
        word for name in ("train", "test", "other") for word in (f"--{name}", str(tmp_path / f"{name}-rows.jsonl"))
    ]
    command = [sys.executable, gsm8k.__file__, *flags, "--output_dir", str(tmp_path / "given")]
    subprocess.run(command, check=True, timeout=600)
    return tmp_path / "given"


def test_a_worked_solution_is_read() -> None:
    row = gsm8k.problem("a", {"question": "How many?", "answer": SOLUTION})
    assert row["response"] == "She sold 1,200/2 = 600 in May.\nSo 1,200+600 = 1,800.\nThe answer is 1800."
    assert (row["answer"], row["steps"], row["question"]) == ("1800", 2, "How many?")
    assert gsm8k.problem("a", {"question": "", "answer": "<<1=1>>" * 12 + "#### -3"})["steps"] == 8
    with pytest.raises(SystemExit, match=r"answer of train-7 has no ####: 'It is 5\.'"):
        gsm8k.problem("train-7", {"question": "", "answer": "It is 5."})


@pytest.mark.parametrize("body", ["There are 8 trees", "There are 8 trees.", "There are 8 trees. "])
def test_a_story_and_its_question_are_one(body: str) -> None:
    row = gsm8k.question("o-1", {"Body": body, "Question": "How many are left?", "Answer": 1234567.5})
    assert row == {"id": "o-1", "question": "There are 8 trees. How many are left?", "answer": "1234567.5"}


def test_the_halves_share_no_question(given: Path, tmp_path: Path) -> None:
    splits = {
        name: {row["question"] for row in lines(given / f"{name}.jsonl")} for name in ("base", "train", "validation")
    }
    assert [len(found) for found in splits.values()] == [500, 100, 400] and len(set.union(*splits.values())) == 1000
    sizes = ladder(tmp_path, given=str(given), train=50, test=20, validation=200)
    assert [len(lines(sizes.questions(name))) for name in ("base", "train", "validation", "gate")] == [
        500,
        50,
        200,
        128,
    ]
    assert lines(sizes.questions("base")) == lines(given / "base.jsonl")
    assert next(study.steps(sizes)).make()["test_steps"] == "2" * 20
    assert sizes.sizes["given"] is True and str(tmp_path) not in json.dumps(sizes.sizes)


def test_other_questions_are_answered_too(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def evaluate(_: Any, name: str, checkpoint: object, data: str, *more: object) -> dict[str, Any]:
        asked.append(data)
        return {"figures": {"accuracy": 0.5}}

    monkeypatch.setattr(compare, "evaluate", evaluate)
    monkeypatch.setattr(compare, "responses", lambda *_: [])
    sizes = ladder(tmp_path, given=str(given), model="m")
    monkeypatch.setattr(type(sizes), "base", lambda _: "m")
    found = compare.on_test(sizes, None, 0)
    assert asked == ["test", "other"] and found["other"] == {"accuracy": 0.5}
    (given / "other.jsonl").unlink()
    assert "other" not in compare.on_test(sizes, None, 0)
    assert lines(sizes.questions("test")) == lines(given / "test.jsonl")
