"""Inside the process that forks a verifier's workers, and inside a worker. Started by `verify.worker_server` only.

The server has imported what the verifier needs and nothing of the caller, which may hold an engine's threads or a GPU.
So a fork is ready within milliseconds. A user's file is run by each worker itself: it may start threads.

Linux semantics are relied on where they exist (death with the parent); the limits of memory are POSIX.
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

OUT_OF_MEMORY = 77  # exit status of a worker that met its memory limit
START_LIMIT = 600.0  # CPU seconds in which a worker has to get its verifier ready; a user's file may import torch
_PR_SET_PDEATHSIG = 1
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


def serve(descriptor: int, parent: int, settings: WorkerSettings) -> None:
    """Fork a worker for each connection that is sent, until the caller closes its end of the socket, or ends.

    Args:
        descriptor: of the socket.
        parent: process id of the caller. Others may have a copy of its end of the socket.
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
    """The descriptor that comes with each byte."""
    awaited: list[Any] = [control]
    with contextlib.suppress(AttributeError, OSError):  # not every kernel has them
        awaited.append(os.pidfd_open(parent))
    while os.getppid() == parent:
        if control in select.select(awaited, [], [])[0]:
            descriptors = socket.recv_fds(control, 1, 1)[1]
            if not descriptors:
                return
            yield descriptors[0]


def _reap() -> None:
    """Let go of the workers that have ended; the caller has seen that they did."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _begin(server: int, control: socket.socket, settings: WorkerSettings) -> None:
    """What a fork does first: it takes its limits, leaves what is the server's, and is to end when the server does."""
    control.close()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it died before the line above
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_AS, (settings.memory_limit, settings.memory_limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Prepared:
    """A verifier that is ready, or what kept it from that, which is then the answer to each task.

    Ours has imported what it needs, and not at the expense of the first task.
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
        """As JSON has it: `judgement`, or `error` and `traceback`."""
        if self.verifier is None or self.failure:
            return self.failure
        try:
            judgement = judge(self.verifier, task, time_limit)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)  # what is left of the address space is unknown: a fresh worker takes over
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
        cpu_timer(os.getpid())  # makes it, which the hook would refuse
        sys.addaudithook(_refuse)
    with contextlib.suppress(EOFError, OSError):
        connection.send_bytes(str(os.getpid()).encode())
        while True:
            reply = prepared.reply(pickle.loads(connection.recv_bytes()), time_limit)
            connection.send_bytes(json.dumps(reply).encode())
    sys.stdout.flush()  # what a user's file has printed


def judge(verifier: Verifier, task: Task, time_limit: float) -> Judgement:
    """Judge one response in this process, which the kernel kills when the time limit is over.

    The limit of our verifiers is CPU time: they only compute, and a machine that is busy or stops for a while must not
    turn a right answer into a `TIMEOUT`. A user's file may wait for a server, so its limit is wall time.

    Args:
        verifier: one of ours, or a user's file.
        task: a response, its gold answer and its prompt. The response None is one that gives the gold answer, which is
            correct where the verifier knows none.
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
    """An audit hook that refuses what has no place in a judgement."""
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
    if writes or event.startswith(_FORBIDDEN):
        raise PermissionError(f"a verifier's worker may not do this: {event}")
