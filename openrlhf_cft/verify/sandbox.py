"""Worker processes that run a verifier with a hard limit of time and memory.

Invariants:

- What a model wrote never hangs, crashes or grows the calling process: a worker that exceeds its time or memory limit,
  or dies while judging, is replaced, and its task is judged `TIMEOUT`.
- An infrastructure error is never a verdict: it raises `VerifierError`.
- Every task ends. Pebble loses a task that is queued while its last worker dies, and waits for ever where a worker
  dies holding the lock of all. A watching thread gives such a pool up, and its tasks run again on a fresh one. They
  raise `VerifierError` once `FAILURES` pools in a row were given up and no task ended in between.
- A task is never blamed for the pool. A task whose own worker dies is judged `TIMEOUT` at once and never runs again,
  so a task that runs again was queued, or its worker waited for others. It may run again any number of times.
- Wall time is no evidence of a fault. A pool is stuck only while its workers sleep though tasks are with them, and
  only in time in which this process ran, see `_watch`. A machine that is busy, or stops for a while, costs nothing.
- Neither start-up nor queueing counts against the time limit: the clock starts when a ready worker takes the task. It
  is a timer of the kernel in that worker, so a caller that stalls (an engine that loads) makes no false `TIMEOUT`. It
  counts the CPU time of our verifiers, and the wall time of a user's file, which may wait for a server.
- No worker outlives its parent, even one that is killed.

Workers are forked from a clean server process that has imported mpmath, never from the caller, which may hold an
engine's threads or a GPU. So a replaced worker is ready within a quarter of a second.

    with VerifierPool("math", workers=2, time_limit=5.0) as pool:
        judgement = await pool.judge(response, answer)      # any number at once
        judgements = pool.judge_all([(response, answer)])   # without an event loop
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType

from pebble import ProcessExpired, ProcessPool

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.errors import VerifierError
from openrlhf_cft.verify import Judgement, check_verifier, is_reward_file
from openrlhf_cft.verify.extract import MAX_CHARS
from openrlhf_cft.verify.sandbox_process import CleanContext, run_verifier, start_worker

logger = logging.getLogger(__name__)

GRACE = 10.0  # seconds after the time limit of a user's file, until its worker is killed from here
MAX_TASKS = 20_000  # of one worker, which is then replaced: a user's file may leak
MIN_MEMORY = 1 << 27  # below it honest answers would exceed the limit
TIME_LIMITS = (5.0, 60.0)  # CPU seconds a judgement of our verifiers; wall seconds one of a user's file
MEMORY_LIMITS = (1 << 30, 1 << 34)  # bytes of address space; a user's file may import torch, which maps many GiB
WATCH = 0.2  # seconds between two looks at whether the pool is alive
STALL = 60.0  # seconds beyond the time limit in which a pool is stuck, until it is given up
FAILURES = 5  # pools given up in a row, without a task done in between, until their tasks raise `VerifierError`
Task = tuple[str | None, str, str]  # response (None: one that gives the gold answer), gold answer, prompt


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
            time_limit: of one judgement, in seconds of CPU time, of wall time for a user's file; by default
                `TIME_LIMITS`.
            memory_limit: address space of one worker in bytes; by default `MEMORY_LIMITS`.
            threshold: the smallest score of a reward file that counts as correct, above 0 and at most 1.

        Raises:
            ValueError: an unknown verifier, or a number or limit that is too small.
        """
        check_verifier(verifier)
        time_limit = TIME_LIMITS[is_reward_file(verifier)] if time_limit is None else time_limit
        memory_limit = MEMORY_LIMITS[is_reward_file(verifier)] if memory_limit is None else memory_limit
        for name, value in (("workers", workers), ("time_limit", time_limit)):
            if value <= 0:
                raise ValueError(f"{name} is {value}, and has to be positive")
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is {threshold}, and has to be above 0 and at most 1")
        if memory_limit < MIN_MEMORY:
            raise ValueError(
                f"memory_limit is {memory_limit}, and a worker needs {MIN_MEMORY} bytes for its imports alone"
            )
        self._time_limit = time_limit
        self._workers = workers
        self._initargs = (verifier, threshold, memory_limit)
        # A user's file may set the worker's timer anew, as `signal.alarm` does; ours cannot, and count CPU time.
        self._kill_after = time_limit + GRACE if is_reward_file(verifier) else None
        self._lock = threading.RLock()
        self._pool: ProcessPool | None = None
        # Submitted to `_pool` and not finished, the oldest first, with the futures of pebble's.
        self._pending: dict[Future[Judgement], Future[Judgement]] = {}
        self._failures = 0  # pools given up since a task was last done
        self._closed = False

    async def judge(self, response: str, answer: str, prompt: str = "") -> Judgement:
        """The verdict on one response. The prompt is of use to reward files only.

        Cancelling the caller lets the worker finish: killing it would cost more than what it has left to do.

        Raises:
            VerifierError: the workers cannot run, or the pool is closed.
        """
        return await self._judge((response[-MAX_CHARS:], answer, prompt))

    async def accepts_gold(self, answer: str, prompt: str = "") -> bool:
        """Whether the verifier calls the gold answer itself correct. A row where it does not cannot be annotated."""
        return (await self._judge((None, answer, prompt))).verdict is Verdict.CORRECT

    async def _judge(self, task: Task) -> Judgement:
        while True:  # `_abandon` ends it
            with contextlib.suppress(BrokenProcessPool):
                return await asyncio.wrap_future(self._submit(task))

    def judge_all(self, pairs: Iterable[tuple[str | None, str]]) -> list[Judgement]:
        """The verdicts on (response, answer) pairs, in their order; blocks until all are there.

        The response None stands for one that gives the gold answer, see `accepts_gold`.

        Raises:
            VerifierError: the workers cannot run, or the pool is closed.
        """
        tasks: list[Task] = [(response and response[-MAX_CHARS:], answer, "") for response, answer in pairs]
        futures = [self._submit(task) for task in tasks]
        return [self._wait(future, task) for future, task in zip(futures, tasks, strict=True)]

    def close(self) -> None:
        """Stop the workers. Judgements still awaited raise `VerifierError`; closing twice is fine."""
        with self._lock:
            self._closed = True
            pool, pending = self._retire()
        _fail(pending, VerifierError("the verifier pool was closed"))
        if pool is not None:
            _dispose(pool)

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, future: Future[Judgement], task: Task) -> Judgement:
        """The result of a submitted task, submitted again where a broken pool took it."""
        while True:  # `_abandon` ends it
            with contextlib.suppress(BrokenProcessPool):
                return future.result()
            future = self._submit(task)

    def _submit(self, task: Task) -> Future[Judgement]:
        """Queue one task. The future raises `BrokenProcessPool` where the pool broke, else at most `VerifierError`."""
        future: Future[Judgement] = Future()
        with self._lock:
            if self._closed:
                raise VerifierError("the verifier pool is closed")
            try:
                pool = self._running_pool()
                call = (*task, self._time_limit)
                inner: Future[Judgement] = pool.schedule(run_verifier, args=call, timeout=self._kill_after)
            except (BrokenProcessPool, RuntimeError, OSError) as error:
                raise VerifierError(f"cannot start the verifier's workers: {error}") from error
            self._pending[future] = inner
        inner.add_done_callback(lambda done: self._finish(pool, future, done))
        return future

    def _running_pool(self) -> ProcessPool:
        """The pool, or a new one where it broke: pebble gives up when an idle worker dies. Called with the lock."""
        if self._pool is not None and not self._pool.active:
            self._abandon(self._pool, "they died")
        if self._pool is None:
            context = CleanContext()
            self._pool = ProcessPool(
                max_workers=self._workers,
                max_tasks=MAX_TASKS,
                initializer=start_worker,
                initargs=self._initargs,
                context=context,
            )
            threading.Thread(target=self._watch, args=(self._pool, context), daemon=True).start()
        return self._pool

    def _watch(self, pool: ProcessPool, context: CleanContext) -> None:
        """Abandon the pool when it has died or is stuck. Runs on its own thread.

        Workers take the oldest task first, so a task that is lost or waits for ever becomes the oldest one. The pool
        is stuck while its oldest task stays the same and fewer workers are at work than tasks are with them. It looks
        stuck while a user's file waits for a server, so it is given up only after more than the time limit.

        A look counts for twice `WATCH` at most: this process may have been stopped since the last one.
        """
        oldest, stuck, last = None, 0.0, time.monotonic()
        while True:
            time.sleep(WATCH)
            with self._lock:
                if self._pool is not pool:
                    return
                now = time.monotonic()
                passed, last = min(now - last, 2 * WATCH), now
                first = list(itertools.islice(self._pending.values(), 2 * self._workers))
                if not first or first[0] is not oldest:
                    oldest, stuck = first[0] if first else None, 0.0
                elif context.at_work() < sum(task is oldest or task.running() for task in first):
                    stuck += passed
                if not pool.active:
                    self._abandon(pool, "they died")
                elif stuck > self._time_limit + STALL:
                    self._abandon(pool, f"none used the CPU for {stuck:.0f} s while a task was waiting")

    def _abandon(self, pool: ProcessPool, cause: str) -> None:
        """Have the tasks of a broken pool raise `BrokenProcessPool`, unless that was done already.

        They raise `VerifierError` where too many pools in a row have broken; the next tasks are tried afresh.
        """
        with self._lock:
            if self._pool is not pool:
                return
            _, pending = self._retire()
            self._failures += bool(pending)
            error: Exception = BrokenProcessPool(f"the verifier's workers failed: {cause}")
            if self._failures >= FAILURES:
                error = VerifierError(f"the verifier's workers failed {self._failures} times in a row: {cause}")
                self._failures = 0
        logger.warning("the verifier's workers failed and are started again: %s", cause)
        threading.Thread(target=_dispose, args=(pool,), daemon=True).start()
        _fail(pending, error)

    def _retire(self) -> tuple[ProcessPool | None, list[Future[Judgement]]]:
        """Take the pool and its unfinished tasks out of service. Called with the lock."""
        pool, pending = self._pool, list(self._pending)
        self._pool, self._pending = None, {}
        return pool, pending

    def _finish(self, pool: ProcessPool, future: Future[Judgement], done: Future[Judgement]) -> None:
        """Pass the outcome of a task on. Called on a thread of pebble's."""
        error = None if done.cancelled() else done.exception()
        if isinstance(error, BrokenProcessPool):
            self._abandon(pool, f"{error}")  # which fails this future with all others of the pool
            return
        with self._lock:
            if self._pending.pop(future, None) is not None:
                self._failures = 0
        with contextlib.suppress(InvalidStateError):  # the future was cancelled, or failed with its pool
            _settle(future, done, error)


def _settle(future: Future[Judgement], done: Future[Judgement], error: BaseException | None) -> None:
    """Turn the outcome of a worker into a judgement or a `VerifierError`."""
    if error is None and not done.cancelled():
        future.set_result(done.result())
    elif isinstance(error, (FutureTimeout, ProcessExpired, MemoryError, RecursionError)):
        future.set_result(Judgement(Verdict.TIMEOUT))
    else:
        failure = VerifierError(f"the verifier failed: {error!r}")
        failure.__cause__ = error
        future.set_exception(failure)


def _fail(futures: Iterable[Future[Judgement]], error: BaseException) -> None:
    for future in futures:
        with contextlib.suppress(InvalidStateError):  # already cancelled or finished
            future.set_exception(error)


def _dispose(pool: ProcessPool) -> None:
    """Stop a pool and wait for its workers and threads."""
    pool.stop()
    pool.join()
