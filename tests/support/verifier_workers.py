"""The worker processes of a `VerifierPool`, as a test finds and kills them."""

import contextlib
import os
import signal
import time

import psutil


def servers():
    """The processes of this one that fork workers."""
    return [child for child in psutil.Process().children() if "worker_process" in " ".join(child.cmdline())]


def workers():
    """The process ids of all workers of this process."""
    return {worker.pid for server in servers() for worker in server.children()}


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
