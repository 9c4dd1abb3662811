"""`make gpu-check` on a CPU: everything once, with the real parts; then `examples/api.py` on what it made."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from train_helpers import run_command, tail

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = ["prepare", "float32", "quickstart", "grpo", "killed", "left"]


@pytest.mark.all
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_everything_works_here(tmp_path: Path) -> None:
    result = run_command(
        [sys.executable, str(EXAMPLES / "gpu_check.py"), "--run_dir", str(tmp_path / "check")], timeout=3000
    )
    assert result.returncode == 0, tail(result)
    *lines, last = result.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("check: ")] == STEPS
    found = json.loads(last)
    assert found["ok"] and all(found[step]["ok"] for step in STEPS)
    assert found["grpo"]["steps"] == 3 and found["quickstart"]["annotated"] > 0 and found["killed"]["rows"] > 0

    run, model = tmp_path / "check" / "quickstart", tmp_path / "check" / "model"
    command = [sys.executable, str(EXAMPLES / "api.py"), "--run_dir", str(run), "--model", str(model)]
    result = run_command([*command, "--questions", str(tmp_path / "check" / "questions" / "test.jsonl")], timeout=900)
    assert result.returncode == 0, tail(result)
    for said in ("rows under strict-3", "'so it is $6.00': wrong", "step 3: loss ", "Pass@4 of test--cft: "):
        assert said in result.stdout, result.stdout


def test_a_folder_of_somebody_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "keep.txt").touch()
    result = run_command([sys.executable, str(EXAMPLES / "gpu_check.py"), "--run_dir", str(tmp_path)])
    assert result.returncode == 1 and "holds something else" in result.stderr, tail(result)
    assert (tmp_path / "thesis" / "keep.txt").exists()
