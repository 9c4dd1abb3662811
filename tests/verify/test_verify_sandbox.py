"""The sandbox: a hostile answer costs a verdict and never the caller."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from cpu_time import cpu_seconds
from slow_verifier import BOMB, NAME, TOWER
from verifier_workers import judging, until, verdicts

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.errors import VerifierError
from openrlhf_cft.verify import sandbox, worker_process
from openrlhf_cft.verify.sandbox import VerifierPool


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

    assert verdicts(asyncio.run(judge())) == [Verdict.TIMEOUT] * 3 + [Verdict.CORRECT]
    assert verdicts(pool.judge_all([("7", "7"), ("7", "8")])) == [Verdict.CORRECT, Verdict.WRONG]


SUPPORT = str(Path(__file__).parents[1] / "support")
LIMITED = f"""
import os, resource, sys
sys.path.append({SUPPORT!r})
import slow_verifier
from openrlhf_cft.verify import load_verifier
from openrlhf_cft.verify.worker_process import judge
pid = os.fork()
if not pid:
    verifier = load_verifier(sys.argv[1])
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, flush=True)
    judge(verifier, ({TOWER!r}, "1/2", ""), float(sys.argv[2]))
    os._exit(0)
_, status, used = os.wait4(pid, 0)
print(os.WTERMSIG(status), used.ru_utime + used.ru_stime)
"""
SLEEPING = "import time\ndef reward_func(queries, prompts, labels):\n    time.sleep(3600)\n"


def test_the_limit_of_our_verifiers_is_cpu_time():
    """So neither a busy machine nor one that stops for a while makes a `TIMEOUT`, and a tower ends when it has to."""
    limit = 3.0
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, NAME, str(limit)], capture_output=True, text=True, check=True
    )
    started, end, used = map(float, done.stdout.split())
    assert end == signal.SIGPROF
    assert 0.9 * limit < used - started < 2.0 * limit  # CPU time, so load cannot change it


def test_the_limit_of_a_users_file_is_wall_time(tmp_path):
    """It may wait for a server, and then it uses no CPU time."""
    script = tmp_path / "sleeping.py"
    script.write_text(SLEEPING)
    done = subprocess.run([sys.executable, "-c", LIMITED, script, "1.0"], capture_output=True, text=True, check=True)
    started, end, used = map(float, done.stdout.split())
    assert end == signal.SIGALRM
    assert used - started < 0.5  # CPU time


def test_a_users_file_that_takes_the_timer_away_is_killed(tmp_path, monkeypatch):
    """As a library does that sets an alarm of its own, which is the same timer."""
    script = tmp_path / "alarm.py"
    script.write_text("import signal\ndef reward_func(*_):\n    signal.alarm(0)\n    while True:\n        pass\n")
    monkeypatch.setattr(sandbox, "GRACE", 1.0)
    with VerifierPool(str(script), workers=1, time_limit=1.0) as pool:
        assert verdicts(pool.judge_all([("5", "5")])) == [Verdict.TIMEOUT]


def test_event_loop_is_free_meanwhile(pool):
    async def ticks():
        task = asyncio.ensure_future(pool.judge(TOWER, "1/2"))
        count = 0
        while not task.done():
            await asyncio.sleep(0.01)
            count += 1
        return count

    # About 100. A loop that is blocked comes once or twice, and on a busy machine the judgement takes longer too.
    assert asyncio.run(ticks()) > 10


def test_queueing_is_not_timed():
    with VerifierPool(NAME, workers=1, time_limit=0.5) as pool:
        judged = pool.judge_all([(TOWER, "1/2")] * 3 + [("5", "5")] * 3)
    assert verdicts(judged) == [Verdict.TIMEOUT] * 3 + [Verdict.CORRECT] * 3


def test_memory_bomb():
    limit = 600.0  # which is not what ends the bomb, on any machine
    with VerifierPool(NAME, workers=1, time_limit=limit, memory_limit=1 << 28) as pool:
        start = time.perf_counter()
        assert verdicts(pool.judge_all([(BOMB, "1/2"), ("5", "5")])) == [Verdict.TIMEOUT, Verdict.CORRECT]
        assert time.perf_counter() - start < limit


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

        def judge(text=text):
            # No `TIMEOUT`: the worker needed less than the second of CPU time that is the pool's limit.
            assert pool.judge_all([(text, "5")])[0].verdict in (Verdict.CORRECT, Verdict.WRONG)

        assert cpu_seconds(judge, clock=time.process_time) < 1.0  # of all threads: some send the text


PAUSED = f"""
import sys
sys.path.append({SUPPORT!r})
from slow_verifier import NAME
from openrlhf_cft.verify import sandbox
with sandbox.VerifierPool(NAME, workers=2, time_limit=0.5) as pool:
    pool.judge_all([("1", "1")])
    print("ready", flush=True)
    while True:
        tasks = [({TOWER!r}, "1/2")] * 2 + [(str(i), str(i)) for i in range(200)] + [({TOWER!r}, "1/2")] * 2
        print(*(judgement.verdict.value for judgement in pool.judge_all(tasks)), flush=True)
"""


def test_a_pause_of_all_processes_is_no_timeout():
    """Each is longer than the time limit, and comes while tasks are being judged."""
    parent = subprocess.Popen([sys.executable, "-c", PAUSED], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout.readline() == "ready\n"
        for _ in range(3):
            family = [psutil.Process(parent.pid), *psutil.Process(parent.pid).children(recursive=True)]
            for number in (signal.SIGSTOP, signal.SIGCONT):
                for process in family:
                    with contextlib.suppress(psutil.NoSuchProcess):  # a worker that met its limit
                        process.send_signal(number)
                time.sleep(2.0 if number is signal.SIGSTOP else 0.3)
        lines = [parent.stdout.readline().split() for _ in range(2)]
    finally:
        parent.kill()
        parent.communicate()
    assert lines == [["timeout"] * 2 + ["correct"] * 200 + ["timeout"] * 2] * 2


def test_gold_answers(pool):
    async def accepted(*golds):
        return [await pool.accepts_gold(gold) for gold in golds]

    assert asyncio.run(accepted("5", r"\frac{1}{2}", "1,234", "}", "")) == [True, True, True, False, False]


def test_closed_pool():
    pool = VerifierPool(NAME, workers=1, time_limit=600.0)  # the limit is not what ends the tower

    async def judge_and_close():
        task = asyncio.ensure_future(pool.judge(TOWER, "1/2"))
        await asyncio.to_thread(until, lambda: judging(pool))
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


@pytest.mark.parametrize(
    ("event", "arguments"),
    [("os.system", (b"true",)), ("subprocess.Popen", ("true", [], None, None)), ("open", ("x", "w", os.O_WRONLY))],
)
def test_the_worker_refuses_what_no_judgement_does(event, arguments):
    with pytest.raises(PermissionError, match=event):
        worker_process._refuse(event, arguments)
    worker_process._refuse("open", ("x", "r", os.O_RDONLY))
