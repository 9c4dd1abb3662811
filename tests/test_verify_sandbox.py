"""The sandbox: hostile answers cost a verdict and never the caller, and a broken pool is never a verdict."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from pebble.pool.base_pool import PoolStatus

from openrlhf_cft.records import Verdict
from openrlhf_cft.verify import sandbox, worker
from openrlhf_cft.verify.sandbox import VerifierError, VerifierPool

TOWER = r"\boxed{(9+0)**(9+0)**(9+0)**9}"  # computing it never ends, in C, holding the interpreter's lock


@pytest.fixture(scope="module")
def pool():
    with VerifierPool("math", workers=2, time_limit=1.0, memory_limit=1 << 29) as pool:
        pool.judge_all([("1", "1")])
        yield pool


def workers():
    """The process ids of all workers of this process."""
    return {child.pid for child in multiprocessing.active_children() if child.name == "pebble_pool_worker"}


def verdicts(judgements):
    return [judgement.verdict for judgement in judgements]


def test_order_is_kept(pool):
    pairs = [(f"it is {i}", str(i if i % 3 else i + 1)) for i in range(300)]
    judgements = pool.judge_all(pairs)
    assert [judgement.answer for judgement in judgements] == [str(i) for i in range(300)]
    assert verdicts(judgements) == [Verdict.CORRECT if i % 3 else Verdict.WRONG for i in range(300)]


def test_many_at_once(pool):
    async def judge_many():
        return await asyncio.gather(*(pool.judge(f"it is {i}", str(i)) for i in range(200)))

    for _ in range(2):  # each time on another event loop
        judgements = asyncio.run(judge_many())
        assert [(judgement.verdict, judgement.answer) for judgement in judgements] == [
            (Verdict.CORRECT, str(i)) for i in range(200)
        ]


def test_tower_times_out_and_the_pool_goes_on(pool):
    async def judge():
        return await asyncio.gather(*(pool.judge(*pair) for pair in [(TOWER, "1/2")] * 3 + [("7", "7")]))

    start = time.perf_counter()
    assert verdicts(asyncio.run(judge())) == [Verdict.TIMEOUT] * 3 + [Verdict.CORRECT]
    assert 1.0 < time.perf_counter() - start < 8.0
    assert verdicts(pool.judge_all([("7", "7"), ("7", "8")])) == [Verdict.CORRECT, Verdict.WRONG]


def test_event_loop_is_free_meanwhile(pool):
    async def ticks():
        task = asyncio.ensure_future(pool.judge(TOWER, "1/2"))
        longest, last = 0.0, time.perf_counter()
        while not task.done():
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
        return longest

    assert asyncio.run(ticks()) < 0.5


def test_queueing_is_not_timed():
    with VerifierPool(workers=1, time_limit=0.5) as pool:
        judged = pool.judge_all([(TOWER, "1/2")] * 3 + [("5", "5")] * 3)
    assert verdicts(judged) == [Verdict.TIMEOUT] * 3 + [Verdict.CORRECT] * 3


def test_memory_bomb():
    with VerifierPool(workers=1, time_limit=20.0, memory_limit=1 << 28) as pool:
        start = time.perf_counter()
        bomb = r"\boxed{(1,)*9**9}"  # 3 GB at once
        assert verdicts(pool.judge_all([(bomb, "1/2"), ("5", "5")])) == [Verdict.TIMEOUT, Verdict.CORRECT]
        assert time.perf_counter() - start < 5.0


def test_deep_nesting(pool):
    answers = ["(" * 400 + "1" + ")" * 400, "{" * 900 + "1" + "}" * 900, "-" * 900 + "1", "\\frac{" * 400]
    for judgement in pool.judge_all([(f"\\boxed{{{answer}}}", "1/2") for answer in answers]):
        assert judgement.verdict is not Verdict.CORRECT
    assert pool.judge_all([("5", "5")])[0].verdict is Verdict.CORRECT


def test_nothing_is_executed(pool, tmp_path):
    canary = tmp_path / "canary"
    attacks = [f"__import__('os').system('touch {canary}')", f"open('{canary}','w')", f"\\input{{{canary}}}", "x.x"]
    attacks += [f"().__class__.__base__.__subclasses__()[0]('{canary}')", f"\\text{{os.mkdir('{canary}')}}"]
    judged = pool.judge_all([(f"\\boxed{{{attack}}}", gold) for attack in attacks for gold in ("1/2", "5", "x")])
    assert set(verdicts(judged)) == {Verdict.WRONG}
    assert not canary.exists()


def test_megabyte_strings(pool):
    texts = ["word " * 200_000 + "5", r"\boxed{5}" * 110_000, "1" * 1_000_000, r"\boxed{" + "1," * 500_000 + "}"]
    for text in texts:
        start = time.perf_counter()
        assert pool.judge_all([(text, "5")])[0].verdict in (Verdict.CORRECT, Verdict.WRONG)
        assert time.perf_counter() - start < 1.0


def test_worker_killed_while_judging(pool):
    async def judge():
        task = asyncio.ensure_future(pool.judge(TOWER, "1/2"))
        await asyncio.sleep(0.3)
        for pid in workers():
            os.kill(pid, signal.SIGKILL)
        return await task, await pool.judge("5", "5")

    assert verdicts(asyncio.run(judge())) == [Verdict.TIMEOUT, Verdict.CORRECT]


def test_workers_killed_again_and_again(pool):
    """Whenever the kill comes, also while a task is queued, every task ends, and only one that ran is a `TIMEOUT`."""

    async def judge(delay):
        tasks = [asyncio.ensure_future(pool.judge(TOWER, "1/2")) for _ in range(1 + delay % 3)]
        await asyncio.sleep(delay / 300)
        for pid in workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return *await asyncio.gather(*tasks), await pool.judge("5", "5")

    for delay in range(15):
        *towers, five = verdicts(asyncio.run(asyncio.wait_for(judge(delay), timeout=60)))
        assert set(towers) == {Verdict.TIMEOUT}
        assert five is Verdict.CORRECT


def test_task_queued_while_the_pool_breaks():
    """Pebble aborts the tasks it knows of, and one that comes a moment later it neither runs nor refuses."""
    with VerifierPool("math", workers=1, time_limit=1.0) as pool:
        pool.judge_all([("1", "1")])
        task = ("5", "5", "")
        future = pool._submit(task)
        pool._pool._context.status = PoolStatus.ERROR
        assert verdicts([pool._wait(future, task)]) == [Verdict.CORRECT]


def test_worker_killed_with_the_lock_of_all(monkeypatch):
    """Nobody can take a task then, and pebble waits for ever."""
    monkeypatch.setattr(sandbox, "STALL", 1.0)
    with VerifierPool("math", workers=2, time_limit=1.0) as pool:
        pool.judge_all([("1", "1")])
        stuck = pool._pool
        assert stuck._pool_manager.worker_manager.workers_channel.mutex.acquire()
        assert verdicts(pool.judge_all([("5", "5"), ("5", "6")])) == [Verdict.CORRECT, Verdict.WRONG]
        assert pool._pool is not stuck


def test_idle_workers_killed(pool):
    """Pebble calls the pool broken; the caller does not notice."""
    assert pool.judge_all([("5", "5")])[0].verdict is Verdict.CORRECT
    for pid in workers():
        os.kill(pid, signal.SIGKILL)
    assert verdicts(pool.judge_all([("5", "5")] * 50)) == [Verdict.CORRECT] * 50
    time.sleep(0.5)
    assert verdicts(pool.judge_all([("5", "6")] * 50)) == [Verdict.WRONG] * 50


def test_gold_answers(pool):
    async def accepted(*golds):
        return [await pool.accepts_gold(gold) for gold in golds]

    assert asyncio.run(accepted("5", r"\frac{1}{2}", "1,234", "}", "")) == [True, True, True, False, False]


def test_failing_worker_is_no_verdict():
    """A worker that cannot get its verifier ready says nothing about the response."""
    with VerifierPool(workers=1) as pool:
        pool._initargs = ("missing", 0.5, 1 << 29)
        with pytest.raises(VerifierError, match="unknown verifier 'missing'"):
            pool.judge_all([("5", "5")])


def test_closed_pool():
    pool = VerifierPool(workers=1, time_limit=5.0)

    async def judge_and_close():
        task = asyncio.ensure_future(pool.judge(TOWER, "1/2"))
        await asyncio.sleep(0.5)
        pool.close()
        await task

    with pytest.raises(VerifierError, match="closed"):
        asyncio.run(judge_and_close())
    pool.close()
    with pytest.raises(VerifierError, match="closed"):
        pool.judge_all([("5", "5")])


@pytest.mark.parametrize(("setting", "value"), [("workers", 0), ("time_limit", -1.0), ("memory_limit", 1 << 20)])
def test_bad_settings_are_named(setting, value):
    with pytest.raises(ValueError, match=f"{setting} is {value}"):
        VerifierPool(**{setting: value})


PARENT = f"""
import multiprocessing, threading, time
from openrlhf_cft.verify.sandbox import VerifierPool
pool = VerifierPool(workers=2, time_limit=60.0)  # no main guard on purpose: the main module is not imported again
pool.judge_all([("5", "5")] * 20)
threading.Thread(target=pool.judge_all, args=([({TOWER!r}, "1/2")],), daemon=True).start()
time.sleep(0.5)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(60)
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
    deadline = time.monotonic() + 5.0
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if alive(pid)]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("event", "arguments"),
    [("os.system", (b"true",)), ("subprocess.Popen", ("true", [], None, None)), ("open", ("x", "w", os.O_WRONLY))],
)
def test_the_worker_refuses_what_no_judgement_does(event, arguments):
    with pytest.raises(PermissionError, match=event):
        worker._refuse(event, arguments)
    worker._refuse("open", ("x", "r", os.O_RDONLY))
