"""Faults through real Ray: rows that kill, engines that never start, a full disk, a second command, Ctrl-C."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from test_pipeline import ROWS, begun, done, finish, start

from openrlhf_cft.cli.flags import run_command
from openrlhf_cft.jobs.tally import ASIDE_AFTER, ASIDES, DEATHS_PER_ENGINE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
KEPT = "finished rows are kept; run the same command to resume"


def fail(process: subprocess.Popen[str], code: int) -> str:
    """The last line of a run that has to end with `code`."""
    output = process.communicate(timeout=600)[0]
    assert process.returncode == code, output
    return [line for line in output.splitlines() if "core_worker" not in line][-1]


def everything(but: set[str]) -> Counter[str]:
    return Counter({f"r{i}": 1 for i in range(ROWS) if f"r{i}" not in but})


def test_rows_that_kill_are_set_aside_and_the_others_finish(tmp_path: Path) -> None:
    """One ends the process, as for want of memory, one the engine, one raises what nobody thought of.

    With one more, the engine dies once, and then does not answer.
    """
    output = finish(start(tmp_path, "kills=r5", "dies=r70", "wrong=r7", "fails=r40"))
    assert done(tmp_path) == everything(but={"r5", "r70", "r7", "r40"})
    failed = [json.loads(line) for line in (tmp_path / "failed.jsonl").read_text().splitlines()]
    errors = {row["id"]: row["error"] for row in failed}
    assert set(errors) == {"r5", "r70", "r7", "r40"}
    assert "died 4 times on it" in errors["r5"] and "its process was killed" in errors["r5"]
    assert "died 4 times on it" in errors["r70"] and "planted death of r70" in errors["r70"]
    assert errors["r7"] == "KeyError: 'planted'" and errors["r40"] == "planted"
    assert all(
        f"row {row_id!r} failed, the next run retries it: {error}" in output for row_id, error in errors.items()
    )
    assert begun(tmp_path).count("r5") == begun(tmp_path).count("r70") == ASIDE_AFTER
    assert begun(tmp_path).count("r40") >= 5, "the actor that died, then one try and three more"
    finish(start(tmp_path))  # rows set aside are tried by the next run
    assert done(tmp_path) == everything(but=set())
    assert (tmp_path / "failed.jsonl").read_text() == ""


def test_an_engine_that_does_not_start_ends_the_job_with_the_cause(tmp_path: Path) -> None:
    last = fail(start(tmp_path, "starts"), 1)
    assert last == f"script: an engine does not start: planted: no such device; {KEPT}"
    assert starts(tmp_path) <= 2


def test_a_worker_that_cannot_go_on_ends_the_job_at_once(tmp_path: Path) -> None:
    last = fail(start(tmp_path, "ends=r5"), 1)
    assert last == f"script: planted: no such weights; {KEPT}"
    assert starts(tmp_path) == 1


@pytest.mark.all
def test_an_engine_that_dies_again_and_again_ends_the_job_with_the_cause(tmp_path: Path) -> None:
    last = fail(start(tmp_path, "all_die"), 1)
    assert re.fullmatch(f"script: .* last cause: planted death of r.*; {KEPT}", last)
    assert starts(tmp_path) <= ASIDES * ASIDE_AFTER + DEATHS_PER_ENGINE, "tries are bounded"
    finish(start(tmp_path))
    assert done(tmp_path) == everything(but=set())


def starts(directory: Path) -> int:
    """How often an engine was started."""
    return len((directory / "started.txt").read_text().split())


def test_a_full_disk_is_told_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """Where and how often it fills is for `make chaos`."""

    def command() -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(SystemExit) as ended:
        run_command("script", command)
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"script: [Errno 28] No space left on device; {KEPT}\n"


def test_a_second_command_on_the_directory_is_refused_and_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    first = start(tmp_path, "slow")
    wait_for(tmp_path / "begun.txt", first)
    members = psutil.Process(first.pid).children(recursive=True)
    assert int((tmp_path / "worker.txt").read_text()) in {member.pid for member in members}
    assert fail(start(tmp_path), 2) == (
        f"script: process {first.pid} on {os.uname().nodename} is working on '{tmp_path}': wait for it or end it"
    )
    os.killpg(first.pid, signal.SIGINT)  # as the terminal does: to all of them
    assert fail(first, 130) == "script: interrupted; run the same command to resume"
    _, alive = psutil.wait_procs(members, timeout=300)
    assert not alive
    finish(start(tmp_path))
    assert done(tmp_path) == everything(but=set())


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.1)
