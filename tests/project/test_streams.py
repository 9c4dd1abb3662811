"""The last lines of `make test`: both streams with what failed in each, what was not tested, and the totals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "streams.py"
PASSES = "def test_a(): pass\n"
FAILS = "def test_b():\n    print('ERROR 11-27 20:05:11 of an engine\\nSKIPPED too')\n    assert 1 == 2\n"
SKIPS = "import pytest\ndef test_c(): pytest.skip('no browser here')\n"
BREAKS = "import nowhere_to_be_found\n"
FIXTURE = "import pytest\n@pytest.fixture\ndef f(): raise OSError('full')\ndef test_d(f): pass\n"


def run(folder: Path, light: str, heavy: str) -> tuple[int, str]:
    """Exit status and output of the streams over two test files of this content."""
    (folder / "test_light.py").write_text(light)
    (folder / "test_heavy.py").write_text(heavy)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -ra\nmarkers = all: not here\n")
    command = [sys.executable, str(SCRIPT), "--logs", str(folder), "--", "test_heavy.py"]
    colours = {**os.environ, "FORCE_COLOR": "1"}  # as some continuous integration has it
    result = subprocess.run(command, cwd=folder, env=colours, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    return result.returncode, result.stdout


def test_all_passed(tmp_path: Path) -> None:
    status, text = run(tmp_path, PASSES, PASSES + "def test_more(): pass\n")
    light, heavy, totals = text.splitlines()[-3:]
    assert status == 0
    assert light.startswith("test: light stream: 1 passed in ") and heavy.startswith(
        "test: heavy stream: 2 passed in "
    )
    assert totals == "3 passed, 0 failed, 0 skipped"


@pytest.mark.parametrize("where", ["light", "heavy"])
def test_a_failure_is_named_at_the_end_whichever_stream_has_it(tmp_path: Path, where: str) -> None:
    status, text = run(tmp_path, *((PASSES + FAILS, PASSES) if where == "light" else (PASSES, PASSES + FAILS)))
    last = text.splitlines()[-4:]
    assert status == 1
    assert last[-1] == "2 passed, 1 failed, 0 skipped"
    found = last.index(f"  FAILED test_{where}.py::test_b - assert 1 == 2".replace("  F", "test:   F"))
    assert last[found - 1].startswith(f"test: {where} stream: 1 failed, 1 passed in ")


@pytest.mark.parametrize(
    ("light", "named", "totals"),
    [
        (BREAKS, "test:   ERROR test_light.py", "1 passed, 1 failed, 0 skipped"),
        (FIXTURE, "test:   ERROR test_light.py::test_d - OSError: full", "1 passed, 1 failed, 0 skipped"),
        ("import os; os._exit(3)", "exit status 3", "1 passed, 1 failed, 0 skipped"),
        ("", "exit status 5", "1 passed, 1 failed, 0 skipped"),
    ],
    ids=["import", "fixture", "death", "no test"],
)
def test_what_never_ran_is_no_success(tmp_path: Path, light: str, named: str, totals: str) -> None:
    status, text = run(tmp_path, light, PASSES)
    assert status == 1
    assert named in "\n".join(text.splitlines()[-4:]) and text.splitlines()[-1] == totals


def test_what_was_not_tested_is_said(tmp_path: Path) -> None:
    status, text = run(tmp_path, SKIPS + SKIPS.replace("test_c", "test_e"), PASSES)
    assert status == 0
    assert text.splitlines()[-2:] == ["test: not tested (2 tests): no browser here", "1 passed, 0 failed, 2 skipped"]
