"""The workers of the sandbox: whoever is killed, whenever, every task ends, and only one that ran is a `TIMEOUT`."""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from slow_verifier import NAME, TOWER
from verifier_workers import all_workers, judging, kill, server, until, verdicts, workers

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.errors import VerifierError
from openrlhf_cft.verify import sandbox
from openrlhf_cft.verify.sandbox import VerifierPool


def test_worker_killed_while_judging():
    async def judge(pool):
        task = asyncio.ensure_future(pool.judge(TOWER, "1/2"))
        await asyncio.to_thread(until, lambda: judging(pool))
        kill(workers(pool))
        return await task, await pool.judge("5", "5")

    with VerifierPool(NAME, workers=2, time_limit=600.0) as pool:  # the limit is not what ends the tower
        assert verdicts(asyncio.run(judge(pool))) == [Verdict.TIMEOUT, Verdict.CORRECT]


def test_a_task_that_kills_its_worker_each_time(tmp_path):
    """It is judged, and so are the tasks beside it: nobody else is blamed."""
    script = tmp_path / "kills.py"
    body = "    if 'kill' in queries[0]:\n        os.kill(os.getpid(), signal.SIGKILL)\n    return [1.0]\n"
    script.write_text(f"import os, signal\ndef reward_func(queries, prompts, labels):\n{body}")
    with VerifierPool(str(script), workers=2) as pool:
        judged = verdicts(pool.judge_all([("kill", ""), ("fine", "")] * 8))
    assert judged == [Verdict.TIMEOUT, Verdict.CORRECT] * 8


def test_workers_killed_again_and_again(pool):
    """Whenever the kill comes, also while a task is queued, every task ends, and only one that ran is a `TIMEOUT`."""

    async def judge(delay):
        tasks = [asyncio.ensure_future(pool.judge(TOWER, "1/2")) for _ in range(1 + delay % 3)]
        await asyncio.sleep(delay / 300)
        kill(workers(pool))
        return *await asyncio.gather(*tasks), await pool.judge("5", "5")

    for delay in range(15):
        *towers, five = verdicts(asyncio.run(asyncio.wait_for(judge(delay), timeout=300)))  # against a hang
        assert set(towers) == {Verdict.TIMEOUT}
        assert five is Verdict.CORRECT


WAITING_ONCE = """
import pathlib, time

def reward_func(queries, prompts, labels):
    seen = pathlib.Path({seen!r})
    if not seen.exists():
        seen.touch()
        time.sleep(3600)
    return [1.0]
"""


def test_a_task_is_not_blamed_for_the_end_of_the_server(tmp_path):
    """All workers end with it. The task that one had taken is judged by the next."""
    script, seen = tmp_path / "waits.py", tmp_path / "seen"
    script.write_text(WAITING_ONCE.format(seen=str(seen)))
    with VerifierPool(str(script), workers=1, time_limit=600.0) as pool:
        future = pool._submit(("5", "5", ""))
        until(seen.exists)
        server(pool).kill()
        assert future.result(timeout=300).verdict is Verdict.CORRECT


def test_idle_workers_killed(pool):
    """No task had been with them, so none is a `TIMEOUT`, however soon it comes."""
    assert pool.judge_all([("5", "5")])[0].verdict is Verdict.CORRECT
    for _ in range(10):
        kill(workers(pool))
        assert verdicts(pool.judge_all([("5", "5"), ("5", "6")])) == [Verdict.CORRECT, Verdict.WRONG]


def test_idle_server_killed(pool):
    server(pool).kill()
    assert verdicts(pool.judge_all([("5", "5"), ("5", "6")] * 20)) == [Verdict.CORRECT, Verdict.WRONG] * 20


def test_workers_that_never_start_are_an_error_with_its_cause(tmp_path):
    script = tmp_path / "ends.py"
    script.write_text("import os\nos._exit(1)\n")
    with VerifierPool(str(script), workers=1) as pool:
        for _ in range(2):
            with pytest.raises(VerifierError, match="workers do not start, 5 in a row: EOFError"):
                pool.judge_all([("5", "5")])


def test_a_worker_is_replaced_after_many_tasks(monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_TASKS", 10)
    with VerifierPool(NAME, workers=1) as pool:
        seen = set()
        for _ in range(3):
            assert verdicts(pool.judge_all([("5", "5")] * 10)) == [Verdict.CORRECT] * 10
            seen.add(pool._seats[0]._worker.pid)
    assert len(seen) == 3


def test_ctrl_c_is_for_the_caller(pool):
    """The terminal sends it to all processes of the command."""
    before = all_workers(pool)
    for pid in [*before, server(pool).pid]:
        os.kill(pid, signal.SIGINT)
    assert verdicts(pool.judge_all([("5", "5")] * 20)) == [Verdict.CORRECT] * 20
    assert all_workers(pool) == before


def test_failing_worker_is_no_verdict():
    """A worker that cannot get its verifier ready says nothing about the response."""
    with VerifierPool(workers=1) as pool:
        pool._settings = replace(pool._settings, verifier="missing")
        with pytest.raises(VerifierError, match="unknown verifier 'missing'"):
            pool.judge_all([("5", "5")])


SUPPORT = str(Path(__file__).parents[1] / "support")
PARENT = f"""
import psutil, sys, threading, time
sys.path.append({SUPPORT!r})
from slow_verifier import NAME
from verifier_workers import all_workers
from openrlhf_cft.verify.sandbox import VerifierPool
pool = VerifierPool(NAME, workers=2, time_limit=3600.0)  # no main guard on purpose: main is not imported again
pids = all_workers(pool)
threading.Thread(target=pool.judge_all, args=([({TOWER!r}, "1/2")],), daemon=True).start()
while not any(psutil.Process(pid).cpu_times().user > 0.3 for pid in pids):
    time.sleep(0.01)
print(*pids, flush=True)
time.sleep(3600)
"""


def test_killed_parent_leaves_no_worker(tmp_path):
    """One worker is idle and one computes: both end with their parent."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.dirname(sandbox.__file__)))}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    until(lambda: not any(alive(pid) for pid in pids))  # the computing one has an hour of CPU time left


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
