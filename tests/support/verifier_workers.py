"""The worker processes of a `VerifierPool`, as a test finds and kills them."""

import contextlib
import os
import signal
import time

import psutil


def server(pool):
    """The process that forks the workers of a pool; other pools of this process have their own."""
    return psutil.Process(pool._server._process.pid)


def workers(pool):
    """The process ids of its workers."""
    return {worker.pid for worker in server(pool).children()}


def all_workers(pool):
    """The process ids of its workers once each seat has one: a seat starts its own with its first task."""
    until(lambda: pool.judge_all([("5", "5")] * 20) and all(seat._worker for seat in pool._seats))
    return {seat._worker.pid for seat in pool._seats}


def verdicts(judgements):
    return [judgement.verdict for judgement in judgements]


def until(condition):
    """Wait for something that has to happen; a machine that is slow takes longer, and the guard is against a hang."""
    guard = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < guard, "it never came true"
        time.sleep(0.01)


def kill(pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def judging(pool):
    """Whether a worker of the pool computes: a judgement that ends uses a hundredth of this."""
    used = 0.0
    for seat in pool._seats:
        with contextlib.suppress(psutil.Error, AttributeError):  # AttributeError: it has none now
            used = max(used, psutil.Process(seat._worker.pid).cpu_times().user)
    return used > 0.3
