"""The process that Ray keeps for each engine: how it handles a row, and a row or an engine that fails."""

from __future__ import annotations

import asyncio
import json
import os
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from openrlhf_cft.data.records import ID
from openrlhf_cft.data.source import NUMBER
from openrlhf_cft.errors import EngineError, JobError, VerifierError
from openrlhf_cft.jobs.gpus import take_own_gpus
from openrlhf_cft.jobs.orphans import end_children_with_this_process

if TYPE_CHECKING:
    import ray.actor

STATUS = "status"
PAYLOAD = "payload"  # the finished row as JSON, so that every block has the same schema, even with empty values
COUNTS = "counts"  # in the payload: what the row adds to the totals, counted once
RETRIES = 3  # of one row, after an infrastructure error
TALLY_SECONDS = 300.0  # guard against a tally that never answers; a slow one must still learn the cause of a death


@dataclass(frozen=True)
class Finished:
    """The result of a worker for one row."""

    status: str
    payload: dict[str, Any]  # any JSON
    counts: dict[str, float]  # added to the progress counters


class RowWorker(Protocol):
    """The work of an engine actor on its rows. The factory given to `run` makes one worker per actor."""

    @property
    def dead(self) -> bool:
        """Whether this worker can do no more and its process must be replaced."""
        ...

    async def work(self, row: dict[str, Any]) -> Finished:
        """Process one row of the source file.

        Raises:
            EngineError, VerifierError: the infrastructure failed; the row is retried.
            JobError: the job cannot go on.
        """
        ...

    def close(self) -> None:
        """End the worker's processes and give its shared memory back."""
        ...


class EngineActor:
    """The class that Ray Data maps rows over: one worker, many rows concurrently."""

    def __init__(self, factory: Callable[[], RowWorker], tally: ray.actor.ActorHandle, rows_in_flight: int) -> None:
        import ray

        end_children_with_this_process()
        take_own_gpus()
        self.tally = tally
        self.actor = ray.get_runtime_context().get_actor_id()
        self.rows_in_flight = rows_in_flight  # at most; Ray Data starts whole blocks
        self.in_flight = 0
        self.change = asyncio.Condition()
        self.lonely = False  # whether a row has the engine for itself, or waits for that
        reason = ray.get(tally.start.remote(self.actor))
        if reason is not None:
            raise JobError(reason)
        try:
            self.worker = factory()
        except Exception as error:
            ray.get(tally.refused.remote(self.actor, str(error), getattr(error, "log", "")))
            if ray.get(tally.reason.remote()) is None:
                os._exit(1)  # Ray restarts a process that has died, but not one that raises
            raise
        tally.ready.remote(self.actor)

    def __del__(self) -> None:
        """Close the worker. Ray Data calls this when the work is done."""
        if hasattr(self, "worker"):
            self.worker.close()
            self.tally.closed.remote(self.actor)

    async def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The finished row, or nothing: the next run does every row that is not written.

        Raises:
            JobError: the job has to end.
        """
        leave = await self.tally.ask.remote(row[ID])
        if leave.stop is not None:
            raise JobError(leave.stop)
        if leave.aside:
            return []
        async with self._admitted(leave.alone):
            await self.tally.begin.remote(self.actor, row[ID])  # recorded before the row can kill this process
            try:
                finished = await self._attempt(row)
            except (EngineError, VerifierError) as error:
                self.tally.fail.remote(self.actor, row[ID], str(error))
                return []
            except JobError as error:
                await self.tally.stop.remote(str(error))
                raise
            except Exception as error:  # an error in one row must not end a job of a week
                sentence = f"{type(error).__name__}: {error}"
                self.tally.fail.remote(self.actor, row[ID], sentence, traceback.format_exc())
                return []
        payload = json.dumps({**finished.payload, COUNTS: finished.counts})
        self.tally.finish.remote(self.actor, row[ID], finished.counts)
        return [{ID: row[ID], NUMBER: row[NUMBER], STATUS: finished.status, PAYLOAD: payload}]

    async def _attempt(self, row: dict[str, Any]) -> Finished:
        """Process the row, and retry it after an infrastructure error."""
        for attempt in range(1 + RETRIES):
            try:
                return await self.worker.work(row)
            except (EngineError, VerifierError) as error:
                if self.worker.dead:
                    await self._die(str(error), getattr(error, "log", ""))
                if attempt == RETRIES:
                    raise
                await asyncio.sleep(2.0**attempt)
        raise AssertionError("unreachable")

    async def _die(self, cause: str, log: str) -> None:
        """End this process. Ray starts another one, and gives it the same block again."""
        try:
            await asyncio.wait_for(self.tally.dying.remote(self.actor, cause, log), TALLY_SECONDS)
        finally:
            os._exit(1)

    @asynccontextmanager
    async def _admitted(self, alone: bool) -> AsyncIterator[None]:
        """Wait until the row may use the engine: alone, or together with rows that do not need it for themselves."""
        async with self.change:
            await self.change.wait_for(lambda: not self.lonely and self.in_flight < self.rows_in_flight)
            if alone:
                self.lonely = True
                await self.change.wait_for(lambda: self.in_flight == 0)
            self.in_flight += 1
        try:
            yield
        finally:
            async with self.change:
                self.in_flight -= 1
                if alone:
                    self.lonely = False
                self.change.notify_all()
