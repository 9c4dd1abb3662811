"""The caller's side of a clean process that forks a verifier's workers, and of one of these workers.

    server = WorkerServer(WorkerSettings("math", threshold=0.5, memory_limit=1 << 30, time_limit=5.0))
    worker = server.start_worker()
    judgement = worker.ask(("it is 5", "5", ""))

`verify.worker_process` holds what runs inside them. Each worker has a connection of its own, so no worker can block
the connections of the others, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.errors import VerifierError
from openrlhf_cft.verify.judgement import Judgement

Task = tuple[str | None, str, str]  # response (None: one that gives the gold answer), gold answer, prompt
Reply = dict[str, Any]  # JSON, not a pickle: a worker has read what a model wrote
# Takes only the search path from the caller, whose main module may import torch or be a script without a main guard.
PROGRAM = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from openrlhf_cft.verify.worker_process import serve
serve(*map(int, sys.argv[1:]), pickle.load(sys.stdin.buffer))
"""


@dataclass(frozen=True)
class WorkerSettings:
    """The settings of every worker in a pool: its verifier and its limits, see `VerifierPool`."""

    verifier: str
    threshold: float
    memory_limit: int
    time_limit: float


class WorkerServer:
    """The process that forks workers. It ends with this process, and its workers end with it. Thread-safe.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self.gone = False  # whether the process is known to have ended
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        with theirs:
            descriptor = theirs.fileno()
            command = [sys.executable, "-c", PROGRAM, str(descriptor), str(os.getpid())]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[descriptor])
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(pickle.dumps([str(entry) for entry in sys.path]) + pickle.dumps(settings))

    def start_worker(self) -> Worker:
        """Start a worker, and block until it is ready.

        Raises:
            OSError, EOFError: the server has ended, or the worker ended before it was ready.
        """
        ours, theirs = socket.socketpair()
        connection = Connection(ours.detach())
        try:
            with theirs, self._lock:
                socket.send_fds(self._control, [b"+"], [theirs.fileno()])
        except OSError:
            self.gone = True
            connection.close()
            raise
        try:
            return Worker(connection, int(connection.recv_bytes()))
        except (EOFError, OSError):
            connection.close()
            raise

    def close(self) -> None:
        """End the process, and its workers with it."""
        self._process.kill()
        self._process.wait()
        with self._lock:
            self.gone = True
            self._control.close()


class Worker:
    """One process that judges a task at a time. Used by one thread; `kill` by any."""

    def __init__(self, connection: Connection, pid: int) -> None:
        self.pid = pid
        self._connection = connection

    def ask(self, task: Task, kill_after: float | None = None) -> Judgement:
        """The judgement on one task.

        Args:
            task: what to judge.
            kill_after: seconds until a worker that does not answer is killed; None: wait without a limit.

        Raises:
            ConnectionError: the worker ended before it took the task.
            EOFError: the worker ended after it took the task, or was killed.
            VerifierError: the verifier failed.
        """
        self._connection.send_bytes(pickle.dumps(task))
        if kill_after is not None and not self._connection.poll(kill_after):
            self.kill()
        try:
            reply = json.loads(self._connection.recv_bytes())
        except ConnectionError:  # the kernel reports this if the worker ended before it read the task
            raise
        except OSError as error:  # in the middle of the reply
            raise EOFError(str(error)) from error
        return _judgement(reply)

    def kill(self) -> None:
        """Kill the worker, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the connection. The worker ends when nobody is left to answer."""
        self._connection.close()


class _InWorker(Exception):
    """The traceback of an error in a worker, as text."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


def _judgement(reply: Reply) -> Judgement:
    if "error" in reply:
        raise VerifierError(f"the verifier failed: {reply['error']}") from _InWorker(reply["traceback"])
    verdict, answer, found_by, score = reply["judgement"]
    return Judgement(Verdict(verdict), answer, found_by, score)
