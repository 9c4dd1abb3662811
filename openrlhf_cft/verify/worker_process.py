"""The process that forks a verifier's workers, and the worker itself. Only `verify.worker_server` starts it.

The server has imported what the verifier needs, and nothing of the caller, which may hold an engine's threads or a
GPU. So a fork is ready within milliseconds. Each worker runs a user's file itself, because the file may start threads.

Death with the parent uses Linux semantics where they exist; the memory limits are POSIX.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import json
import os
import pickle
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.verify import Verifier, is_reward_file, load_verifier
from openrlhf_cft.verify.cpu_timer import cpu_timer
from openrlhf_cft.verify.judgement import Judgement
from openrlhf_cft.verify.worker_server import Reply, Task, WorkerSettings

OUT_OF_MEMORY = 77  # exit status of a worker that exceeded its memory limit
START_LIMIT = 600.0  # CPU seconds for a worker to get its verifier ready; a user's file may import torch
_PR_SET_PDEATHSIG = 1
# Audit events that our verifiers never cause. Nothing that a model wrote is evaluated. Even if it were, it could not
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


def serve(descriptor: int, parent: int, settings: WorkerSettings) -> None:
    """Fork a worker for each connection that is sent, until the caller closes its end of the socket, or ends.

    Args:
        descriptor: of the socket.
        parent: process id of the caller. Other processes may have a copy of its end of the socket.
        settings: of the workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller, who then ends the workers
    server, prepared = os.getpid(), None if is_reward_file(settings.verifier) else Prepared(settings)
    gc.freeze()
    with socket.socket(fileno=descriptor) as control:
        for connection in _connections(control, parent):
            _reap()
            if not os.fork():
                try:
                    _begin(server, control, settings)
                    _work(Connection(connection), prepared or Prepared(settings), settings.time_limit)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(0)
            os.close(connection)


def _connections(control: socket.socket, parent: int) -> Iterator[int]:
    """The descriptors that the caller sends, one with each byte."""
    awaited: list[Any] = [control]
    with contextlib.suppress(AttributeError, OSError):  # not every kernel has it
        awaited.append(os.pidfd_open(parent))
    while os.getppid() == parent:
        if control in select.select(awaited, [], [])[0]:
            descriptors = socket.recv_fds(control, 1, 1)[1]
            if not descriptors:
                return
            yield descriptors[0]


def _reap() -> None:
    """Reap the workers that have ended. The caller notices their end by itself."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _begin(server: int, control: socket.socket, settings: WorkerSettings) -> None:
    """First steps of a fork: close the server's socket, arrange to end when the server does, and set the limits."""
    control.close()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it died before the line above
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_AS, (settings.memory_limit, settings.memory_limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Prepared:
    """A verifier that is ready, or the error that prevented it, which is then the answer to each task.

    Our verifiers import here what they need, so that the first task does not pay for it.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self.verifier: Verifier | None = None
        self.failure: Reply = {}
        signal.setitimer(signal.ITIMER_PROF, START_LIMIT)  # kills it
        try:
            self.verifier = load_verifier(settings.verifier, settings.threshold)
            if not self.verifier.trusted:
                self.verifier.judge("\\boxed{x + \\frac{1}{2}}", "x+1", "")
        except BaseException as error:  # also a SystemExit of a user's file
            self.failure = _failed(error)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def reply(self, task: Task, time_limit: float) -> Reply:
        """The answer to a task, as JSON: `judgement`, or `error` and `traceback`."""
        if self.verifier is None or self.failure:
            return self.failure
        try:
            judgement = judge(self.verifier, task, time_limit)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)  # nobody knows how much memory is left: a fresh worker takes over
        except RecursionError:
            judgement = Judgement(Verdict.TIMEOUT)
        except BaseException as error:
            return _failed(error)
        return {"judgement": [judgement.verdict.value, judgement.answer, judgement.found_by, judgement.score]}


def _failed(error: BaseException) -> Reply:
    return {"error": repr(error), "traceback": "".join(traceback.format_exception(error))}


def _work(connection: Connection, prepared: Prepared, time_limit: float) -> None:
    """Answer one task after another, until the caller has no more or ends."""
    if prepared.verifier is not None and not prepared.verifier.trusted:
        cpu_timer(os.getpid())  # creates the timer now, which the hook would refuse later
        sys.addaudithook(_refuse)
    with contextlib.suppress(EOFError, OSError):
        connection.send_bytes(str(os.getpid()).encode())
        while True:
            reply = prepared.reply(pickle.loads(connection.recv_bytes()), time_limit)
            connection.send_bytes(json.dumps(reply).encode())
    sys.stdout.flush()  # what a user's file has printed


def judge(verifier: Verifier, task: Task, time_limit: float) -> Judgement:
    """Judge one response in this process. The kernel kills the process when the time limit is over.

    The limit of our verifiers is CPU time: they only compute, and a machine that is busy or stops for a while must not
    turn a right answer into a `TIMEOUT`. A user's file may wait for a server, so its limit is wall time.

    Args:
        verifier: one of ours, or a user's file.
        task: a response, its gold answer and its prompt. A response of None stands for one that gives the gold answer;
            it is correct if the verifier cannot write one.
        time_limit: in seconds.

    Raises:
        Exception: an error of the verifier itself.
    """
    response, answer, prompt = task
    wall = (functools.partial(signal.setitimer, signal.ITIMER_REAL), signal.SIGALRM)
    limit, alarm = wall if verifier.trusted else (cpu_timer(os.getpid()).set, signal.SIGPROF)
    signal.signal(alarm, signal.SIG_DFL)  # no Python handler: it would wait for the interpreter's lock
    limit(time_limit)
    try:
        if response is None:
            response = verifier.gold_response(answer)
            if response is None:
                return Judgement(Verdict.CORRECT)
        return verifier.judge(response, answer, prompt)
    finally:
        limit(0)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook that refuses actions that a judgement never needs."""
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
    if writes or event.startswith(_FORBIDDEN):
        raise PermissionError(f"a verifier's worker may not do this: {event}")
