"""The batch that the quickstart chooses for few rows, as its script gets it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from train_helpers import make_rows, write_rows

from openrlhf_cft.data import records

SCRIPT = Path(__file__).parents[2] / "examples" / "batch_size.py"


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """The script with these variables and no others of its kind."""
    names = ("BATCH", "MICRO", "GPUS")
    environment = {name: value for name, value in os.environ.items() if name not in names} | variables
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def annotated(folder: Path, rows: int) -> Path:
    """A data set of so many rows with a critical token, and two without."""
    made = make_rows(rows + 2)
    for row in made[:2]:
        row[records.MASK] = [0.0] * len(row[records.MASK])
    return write_rows(folder, made)


@pytest.mark.parametrize("rows", [1, 5, 8, 11, 15, 16, 40])
@pytest.mark.parametrize("gpus", [1, 2, 3])
def test_every_number_of_rows_makes_whole_batches(tmp_path: Path, rows: int, gpus: int) -> None:
    result = run("--annotated", annotated(tmp_path, rows), GPUS=str(gpus))
    if rows < gpus:
        assert result.returncode == 1
        assert result.stderr == (
            f"quickstart: {rows} rows of {tmp_path} with a critical token, and one batch needs {gpus}: "
            "give more questions (TRAIN)\n"
        )
        return
    batch, micro = map(int, re.fullmatch(r"export BATCH=(\d+) MICRO=(\d+)\n", result.stdout).groups())
    assert 1 <= batch <= min(16, rows) and micro <= 8
    assert batch % (micro * gpus) == 0, "OpenRLHF refuses a batch that is no multiple of its micro-batches"
    assert rows // gpus // micro >= batch // micro // gpus, "an epoch has a whole batch"
    assert batch > min(16, rows) // 2, "no more is given up than whole micro-batches need"
    assert (f"batches of {batch} rows and not of 16" in result.stderr) == (batch < 16)


@pytest.mark.parametrize(("given", "micro"), [("4", 4), ("12", 6), ("16", 8), ("11", 1)])
def test_a_batch_that_is_given_is_kept(tmp_path: Path, given: str, micro: int) -> None:
    result = run("--annotated", annotated(tmp_path, 16), BATCH=given)
    assert (result.stdout, result.stderr) == (f"export BATCH={given} MICRO={micro}\n", "")


def test_a_batch_that_the_rows_do_not_fill_is_refused_before_an_engine_starts(tmp_path: Path) -> None:
    questions = tmp_path / "train.jsonl"
    questions.write_text('{"question": "?"}\n\n' * 6)
    assert run("--questions", questions).returncode == 0
    assert run("--questions", questions, BATCH="6").returncode == 0
    result = run("--questions", questions, BATCH="16")
    assert result.returncode == 1
    assert result.stderr == f"quickstart: BATCH=16 is more than the 6 questions in {questions}: set BATCH=6 or less\n"
    result = run("--annotated", annotated(tmp_path / "data", 5), BATCH="6")
    assert "BATCH=6 is more than the 5 rows of" in result.stderr and result.returncode == 1


@pytest.mark.parametrize(("name", "value"), [("BATCH", "many"), ("GPUS", "0"), ("MICRO", "-1")])
def test_what_is_no_number_is_named(tmp_path: Path, name: str, value: str) -> None:
    result = run("--annotated", annotated(tmp_path, 8), **{name: value})
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr == f"quickstart: {name}={value} is not a whole number above 0\n"


def test_a_refusal_ends_the_script() -> None:
    """`eval "$(command)"` goes on when the command fails."""
    lines = (SCRIPT.parent / "quickstart.sh").read_text().splitlines()
    assert not [line for line in lines if line.startswith('eval "$(')]
    assert next(line for line in lines if "batch_size.py --annotated" in line).startswith("batch=$(")


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    result = run("--annotated", annotated(tmp_path, 0))
    assert result.returncode == 1
    assert result.stderr.startswith("quickstart: 0 rows of") and result.stdout == ""
