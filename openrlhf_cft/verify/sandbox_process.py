"""Inside a verifier's worker process, and how it is started. Used by `verify.sandbox` only.

Linux semantics are relied on where they exist (death with the parent); the limits of memory are POSIX.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import types
from multiprocessing import context, forkserver, popen_forkserver, process, spawn
from typing import Any

import psutil

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.verify import load_verifier
from openrlhf_cft.verify.judgement import Judgement, Verifier

OUT_OF_MEMORY = 77  # exit status of a worker that met its memory limit
START_LIMIT = 600.0  # CPU seconds in which a worker has to get its verifier ready; a user's file may import torch
_PR_SET_PDEATHSIG = 1
_PRELOAD = ["mpmath", __name__]
# Audit events that no judgement of ours causes. Nothing that a model wrote is evaluated, and if it were, it could not
# start a process, open a connection, or change a file.
_FORBIDDEN = (
    *(
        "os.system",
        "os.exec",
        "os.fork",
        "os.posix_spawn",
        "os.spawn",
        "subprocess.Popen",
        "pty.spawn",
        "ctypes.dlopen",
    ),
    *("socket.", "shutil.", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.kill", "os.putenv"),
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_verifier: Verifier | None = None
_failure: BaseException | None = None


def start_worker(verifier: str, threshold: float, memory_limit: int) -> None:
    """Set the limits of this process and make the verifier ready. The initializer of every worker.

    A failure is kept and raised by each task: pebble would replace a worker that fails to start, for ever.

    Args:
        verifier: name of a verifier, or path of a reward file.
        threshold: the smallest score of a reward file that counts as correct.
        memory_limit: address space of this process in bytes.
    """
    global _verifier, _failure
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a Python handler would wait for a computation that never ends
    _die_with_parent()
    signal.setitimer(signal.ITIMER_PROF, START_LIMIT)  # kills it: a worker that computes is never called stuck
    try:
        resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _verifier = load_verifier(verifier, threshold)
        if not _verifier.trusted:
            # Imports what it needs now, and not at the expense of the first task.
            _verifier.judge("\\boxed{x + \\frac{1}{2}}", "x+1", "")
            sys.addaudithook(_refuse)
    except Exception as error:
        _failure = error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def run_verifier(response: str | None, answer: str, prompt: str, time_limit: float) -> Judgement:
    """Judge one response in a worker, which the kernel kills when the time limit is over.

    The limit of our verifiers is CPU time: they only compute, and a machine that is busy or stops for a while must not
    turn a right answer into a `TIMEOUT`. A user's file may wait for a server, so its limit is wall time.

    Args:
        response: text of a model; None for a response that gives the gold answer, which is correct where the verifier
            knows none.
        answer: the gold answer.
        prompt: text of the prompt.
        time_limit: in seconds.

    Raises:
        Exception: whatever kept the worker from becoming ready, or an error of the verifier itself.
    """
    if _failure is not None:
        raise _failure
    assert _verifier is not None
    wall = (signal.ITIMER_REAL, signal.SIGALRM)
    timer, alarm = wall if _verifier.trusted else (signal.ITIMER_PROF, signal.SIGPROF)
    signal.signal(alarm, signal.SIG_DFL)  # no Python handler: it would wait for the interpreter's lock
    signal.setitimer(timer, time_limit)
    try:
        if response is None:
            response = _verifier.gold_response(answer)
            if response is None:
                return Judgement(Verdict.CORRECT)
        return _verifier.judge(response, answer, prompt)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # what is left of the address space is unknown: a fresh worker takes over
    finally:
        signal.setitimer(timer, 0)  # before the result is sent, which holds a lock of all workers


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook that refuses what has no place in a judgement."""
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
    if writes or event.startswith(_FORBIDDEN):
        raise PermissionError(f"a verifier's worker may not do this: {event}")


def _die_with_parent() -> None:
    """Have the kernel kill this process when the server that forked it ends, as it does when the caller dies.

    The server ends when the last copy of a pipe is closed, and it gives each process one: that of a computing worker
    would keep both alive until the time limit.
    """
    alive = getattr(forkserver._forkserver, "_forkserver_alive_fd", None)
    if alive is not None:
        os.close(alive)
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # it died before the line above
        os._exit(1)


def _without_main(name: str) -> dict[str, Any]:
    """What a new process is told about its parent, less the parent's main module."""
    return {key: value for key, value in spawn.get_preparation_data(name).items() if not key.startswith("init_main")}


class _CleanPopen(popen_forkserver.Popen):
    """Starts a process without importing the caller's `__main__` into it, as multiprocessing would: it may import
    torch, or be a script without a main guard. This is multiprocessing's method with one name bound differently."""

    _launch = types.FunctionType(
        popen_forkserver.Popen._launch.__code__,  # type: ignore[attr-defined]
        {**vars(popen_forkserver), "spawn": types.SimpleNamespace(get_preparation_data=_without_main)},
    )


class _CleanProcess(context.ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Any:
        return _CleanPopen(process_obj)


class CleanContext(context.ForkServerContext):
    """A multiprocessing context whose processes are forked from a server that has mpmath and nothing of the caller."""

    def __init__(self) -> None:
        super().__init__()
        # Without effect where a server runs already: slower starts, nothing else.
        self.set_forkserver_preload(_PRELOAD)
        self._started: list[process.BaseProcess] = []
        self._used: dict[int, float] = {}  # CPU seconds at the last look, by process id

    def Process(self, *args: Any, **kwargs: Any) -> process.BaseProcess:  # type: ignore[override]
        """A process of this context, which starts later."""
        made = _CleanProcess(*args, **kwargs)
        self._started.append(made)
        return made

    def at_work(self) -> int:
        """How many of the processes have computed since the last look, or are kept from it by the machine.

        A process that sleeps is not at work. One that is ready to run, stopped, reading memory back from the disk or
        still being started is: it goes on as soon as the machine lets it.
        """
        count = 0
        for started in list(self._started):
            pid = started.pid
            if pid is None:
                count += 1
                continue
            try:
                worker = psutil.Process(pid)
                seconds, status = sum(worker.cpu_times()[:2]), worker.status()
            except psutil.Error:
                status = psutil.STATUS_DEAD
            if status in (psutil.STATUS_DEAD, psutil.STATUS_ZOMBIE):
                self._started.remove(started)
                self._used.pop(pid, None)
                continue
            asleep = status in (psutil.STATUS_SLEEPING, psutil.STATUS_IDLE)
            count += not asleep or seconds > self._used.get(pid, 0.0)
            self._used[pid] = seconds
        return count
