"""Ray Data for real: every row exactly once, whatever is killed. The worker is scripted, the rest is not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from openrlhf_cft.data.location import location
from openrlhf_cft.errors import InputError
from openrlhf_cft.jobs.pipeline import PoolSettings, blocks_in_flight, rows_per_block
from openrlhf_cft.jobs.workdir import Workdir

SCRIPT = Path(__file__).parents[1] / "support" / "pipeline_script.py"
ROWS = 96
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def start(directory: Path, *faults: str, rows: int = ROWS) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(directory), str(rows), *faults]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as from a terminal
    )


def finish(process: subprocess.Popen[str]) -> str:
    """The output of a run that has to succeed; its processes are ended if it hangs."""
    try:
        output = process.communicate(timeout=600)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, output
    return output


def kill_driver(process: subprocess.Popen[str]) -> None:
    """Kill the driver alone, and wait until all that works on rows has gone by itself.

    Ray's agents work on none, and look for their cluster for a minute.
    """
    workers = []
    for member in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "Agent" not in " ".join(member.cmdline()):
                workers.append(member)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not psutil.wait_procs(workers, timeout=300)[1], "they go on without their driver"


def done(directory: Path) -> Counter[str]:
    """How often each row is in the output; each with the right payload."""
    rows = list(Workdir(location(directory), "test").outcomes.rows(["id", "payload"]))
    assert all(json.loads(row["payload"])["square"] == int(row["id"][1:]) ** 2 for row in rows)
    return Counter(row["id"] for row in rows)


def anything_done(directory: Path) -> bool:
    """Of a job that runs: a file that it is in the middle of writing cannot be read yet."""
    try:
        return bool(done(directory))
    except InputError:
        return False


def begun(directory: Path) -> list[str]:
    return (directory / "begun.txt").read_text().split()


@pytest.mark.parametrize(
    ("total", "engines", "rows"),
    [(1, 1, 1), (64, 1, 16), (640, 8, 16), (32_001, 8, 17), (100_000, 1, 50), (10**8, 8, 64), (30, 8, 1), (200, 8, 6)],
)
def test_blocks_grow_with_the_job(total: int, engines: int, rows: int) -> None:
    assert rows_per_block(total, engines) == rows


@pytest.mark.parametrize(
    ("total", "engines", "blocks"), [(30, 8, 4), (64, 1, 4), (100_000, 1, 4), (1, 8, 1), (200, 8, 5), (40, 2, 4)]
)
def test_no_engine_takes_more_than_its_share(total: int, engines: int, blocks: int) -> None:
    assert blocks_in_flight(total, rows_per_block(total, engines), PoolSettings(engines)) == blocks


def test_all_engines_have_some_of_few_rows(tmp_path: Path) -> None:
    """Though the first of them is up long before the last: none of the twelve ends before all have begun.

    The directory's name is one that Ray Data would take for the value of a column.
    """
    directory = tmp_path / "id=7"
    directory.mkdir()
    finish(start(directory, "engines=4", "together", rows=12))
    rows = list(Workdir(location(directory), "test").outcomes.rows(["id", "payload"]))
    assert sorted(row["id"] for row in rows) == sorted(f"r{i}" for i in range(12))
    assert sorted(Counter(json.loads(row["payload"])["pid"] for row in rows).values()) == [3, 3, 3, 3]


def test_a_driver_killed_midway_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, f"waits=r{ROWS - 1}")  # so that it is not done before it is killed, on any machine
    deadline = time.monotonic() + 400
    while not anything_done(tmp_path):
        assert process.poll() is None and time.monotonic() < deadline, "nothing was written"
        time.sleep(0.1)
    kill_driver(process)
    checkpointed = {row_id for file in (tmp_path / "checkpoint").glob("*.parquet") for row_id in ids(file)}
    assert 0 < len(checkpointed) < ROWS, "killed too early to show anything"
    (tmp_path / "begun.txt").unlink()
    assert not (tmp_path / "closed").exists()
    output = finish(start(tmp_path))
    assert "done before" in output
    assert (tmp_path / "closed").exists(), "the worker was killed, not closed: an engine would leave shared memory"
    assert done(tmp_path) == Counter({f"r{i}": 1 for i in range(ROWS)})
    assert not checkpointed & set(begun(tmp_path)), "a row was done again after its checkpoint"
    (tmp_path / "begun.txt").unlink()
    finish(start(tmp_path))  # complete: nothing to do
    assert not (tmp_path / "begun.txt").exists()


def ids(file: Path) -> list[str]:
    import pyarrow.parquet as pq

    return [] if "pending" in file.name else list(pq.read_table(file)["id"].to_pylist())
