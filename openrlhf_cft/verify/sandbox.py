"""Worker processes that run a verifier with a hard limit of time and memory.

Invariants:

- Text of a model never hangs, crashes or grows the calling process. A worker that exceeds its time or memory limit, or
  dies while judging, is replaced, and its task is judged `TIMEOUT`.
- An infrastructure error is never a verdict: it raises `VerifierError`.
- Every task ends. Each worker has a thread here that waits for its answer or its end. Workers share nothing that one
  could leave locked or broken when it dies.
- A task is blamed only for the death of the worker that had taken it, and only if the server of all workers is still
  alive. Otherwise the task runs again, any number of times.
- Neither start-up nor queueing counts against the time limit: the clock starts when a ready worker takes the task. It
  is a kernel timer in that worker, so a caller that stalls (an engine that loads) causes no false `TIMEOUT`. It counts
  CPU time for our verifiers, and wall time for a user's file, which may wait for a server.
- No worker outlives its parent, even if the parent is killed.

Workers are forked from a clean server process, see `verify.worker_server`.

    with VerifierPool("math", workers=2, time_limit=5.0) as pool:
        judgement = await pool.judge(response, answer)      # any number at once
        judgements = pool.judge_all([(response, answer)])   # without an event loop
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.errors import VerifierError
from openrlhf_cft.verify import Judgement, check_verifier, is_reward_file
from openrlhf_cft.verify.extract import MAX_CHARS
from openrlhf_cft.verify.worker_server import Task, Worker, WorkerServer, WorkerSettings

logger = logging.getLogger(__name__)

GRACE = 10.0  # seconds after the time limit of a user's file, until its worker is killed from here
MAX_TASKS = 20_000  # of one worker, which is then replaced: a user's file may leak memory
MIN_MEMORY = 1 << 27  # with less, honest answers would exceed the limit
TIME_LIMITS = (5.0, 60.0)  # per judgement: CPU seconds for our verifiers, wall seconds for a user's file
MEMORY_LIMITS = (1 << 30, 1 << 34)  # bytes of address space; a user's file may import torch, which maps many GiB
STARTS = 5  # failed starts of a worker in a row, after which its task raises `VerifierError`


class VerifierPool:
    """Judges responses in worker processes. Safe to use from several threads and event loops at once."""

    def __init__(
        self,
        verifier: str = "math",
        workers: int = 2,
        time_limit: float | None = None,
        memory_limit: int | None = None,
        threshold: float = 0.5,
    ) -> None:
        """
        Args:
            verifier: its name, see `verify.VERIFIERS`, or the path of a user's reward file.
            workers: number of processes, each about 60 MiB; they start with the first task.
            time_limit: of one judgement, in seconds of CPU time; for a user's file, of wall time. By default
                `TIME_LIMITS`.
            memory_limit: address space of one worker in bytes; by default `MEMORY_LIMITS`.
            threshold: the smallest score of a reward file that counts as correct, above 0 and at most 1.

        Raises:
            ValueError: the verifier is unknown, or a number or limit is out of range.
        """
        check_verifier(verifier)
        time_limit = TIME_LIMITS[is_reward_file(verifier)] if time_limit is None else time_limit
        memory_limit = MEMORY_LIMITS[is_reward_file(verifier)] if memory_limit is None else memory_limit
        for name, value in (("workers", workers), ("time_limit", time_limit)):
            if not value > 0:  # NaN, too
                raise ValueError(f"{name} is {value}, must be positive")
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is {threshold}, must be above 0 and at most 1")
        if memory_limit < MIN_MEMORY:
            raise ValueError(
                f"memory_limit is {memory_limit} bytes; a worker needs {MIN_MEMORY / 2**30:g} GiB or more to import"
            )
        self._settings = WorkerSettings(verifier, threshold, memory_limit, time_limit)
        # A user's file may reset the worker's timer, as `signal.alarm` does. Our verifiers cannot, and count CPU time.
        self._kill_after = time_limit + GRACE if is_reward_file(verifier) else None
        self._lock = threading.Lock()
        self._server: WorkerServer | None = None
        self._tasks: SimpleQueue[tuple[Future[Judgement], Task] | None] = SimpleQueue()
        self._seats = [_Seat(self) for _ in range(workers)]
        self._started = self._closed = False

    async def judge(self, response: str, answer: str, prompt: str = "") -> Judgement:
        """The verdict on one response. Only reward files use the prompt.

        If the caller is cancelled, the worker still finishes: killing it would cost more than its remaining work.

        Raises:
            VerifierError: the workers cannot run, or the pool is closed.
        """
        return await self._judge((response[-MAX_CHARS:], answer, prompt))

    def judge_now(self, response: str, answer: str, prompt: str = "") -> Judgement:
        """`judge` for callers without an event loop, or inside one that they must not wait in; blocks."""
        return self._submit((response[-MAX_CHARS:], answer, prompt)).result()

    async def accepts_gold(self, answer: str, prompt: str = "") -> bool:
        """Whether the verifier calls the gold answer itself correct. If it does not, the row cannot be annotated."""
        return (await self._judge((None, answer, prompt))).verdict is Verdict.CORRECT

    async def _judge(self, task: Task) -> Judgement:
        return await asyncio.wrap_future(self._submit(task))

    def judge_all(self, pairs: Iterable[tuple[str | None, str]]) -> list[Judgement]:
        """The verdicts on (response, answer) pairs, in their order; blocks until all are there.

        A response of None stands for one that gives the gold answer, see `accepts_gold`.

        Raises:
            VerifierError: the workers cannot run, or the pool is closed.
        """
        futures = [self._submit((response and response[-MAX_CHARS:], answer, "")) for response, answer in pairs]
        return [future.result() for future in futures]

    def close(self) -> None:
        """Stop the workers. Judgements still awaited raise `VerifierError`; closing twice is fine."""
        with self._lock:
            self._closed, server = True, self._server
            for _ in self._seats:
                self._tasks.put(None)
        if server is not None:
            server.close()
        for seat in self._seats:  # where the kernel supports it, the workers have ended with the server
            seat.kill()
        if self._started:
            for seat in self._seats:
                seat.join()

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, task: Task) -> Future[Judgement]:
        """Queue one task. The future raises no other exception than `VerifierError`."""
        future: Future[Judgement] = Future()
        with self._lock:
            self._refuse_if_closed()
            self._tasks.put((future, task))
            if not self._started:
                self._started = True
                for seat in self._seats:
                    seat.start()
        return future

    def _running_server(self) -> WorkerServer:
        """The server of all workers; a new one if it has ended."""
        with self._lock:
            self._refuse_if_closed()
            if self._server is not None and self._server.gone:
                logger.warning("the process that starts the verifier's workers has ended; it is started again")
                self._server.close()
                self._server = None
            if self._server is None:
                self._server = WorkerServer(self._settings)
            return self._server

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise VerifierError("the verifier pool is closed")


class _Seat(threading.Thread):
    """A place for one worker, and the thread that gives it task after task."""

    def __init__(self, pool: VerifierPool) -> None:
        super().__init__(name="verifier", daemon=True)
        self._pool = pool
        self._server: WorkerServer | None = None  # that of the worker
        self._worker: Worker | None = None
        self._done = 0  # tasks of this worker

    def run(self) -> None:
        """Judge what is queued, until the pool is closed."""
        while (item := self._pool._tasks.get()) is not None:
            future, task = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                judgement = self._judge(task)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(judgement)
        self._dismiss()

    def kill(self) -> None:
        """End the worker, whatever it does."""
        worker = self._worker
        if worker is not None:
            worker.kill()

    def _judge(self, task: Task) -> Judgement:
        if self._done >= MAX_TASKS:
            self._dismiss()
        while True:
            worker = self._worker or self._start()
            self._done += 1
            try:
                return worker.ask(task, self._pool._kill_after)
            except ConnectionError:  # it ended before it took the task
                self._dismiss()
            except EOFError:
                self._dismiss()
                self._pool._refuse_if_closed()
                if self._replace():
                    return Judgement(Verdict.TIMEOUT)

    def _start(self) -> Worker:
        """Put a worker that is ready into this place.

        Raises:
            VerifierError: it does not start, or the pool is closed.
        """
        for _ in range(STARTS):
            try:
                self._server = self._pool._running_server()
                self._worker = self._server.start_worker()
                return self._worker
            except (OSError, EOFError) as error:
                cause = error
        raise VerifierError(f"the verifier's workers do not start, {STARTS} in a row: {cause!r}") from cause

    def _replace(self) -> bool:
        """Start the next worker if the server is still alive. Returns whether it is; it ends before its workers do."""
        assert self._server is not None
        try:
            self._worker = self._server.start_worker()
        except (OSError, EOFError):
            return False
        return True

    def _dismiss(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._worker, self._done = None, 0
