"""Ray Data: read rows, map them over a pool of engine actors, write blocks with a checkpoint. Only this imports ray.

Every finished row is written once and never computed again: the same call after a crash goes on where it stopped. Rows
whose infrastructure failed are left out of the output, so the next call does them; `run` returns their errors.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from openrlhf_cft.annotate.generate import GeneratorError
from openrlhf_cft.platform import environment, has_gpu
from openrlhf_cft.records import ID
from openrlhf_cft.verify.sandbox import VerifierError

if TYPE_CHECKING:
    import ray.actor

STATUS = "status"
PAYLOAD = "payload"  # the finished row as JSON: one schema for every block, whatever is empty in it
OPEN_ENGINES = "open_engines"  # a counter of the tally
ROWS_PER_BLOCK = 16  # rows that are written and checkpointed together
RETRIES = 3  # of one row, after an infrastructure error
MAX_RESTARTS = 10  # of one actor; an engine that dies again and again has a cause that a further start does not mend
PROGRESS_SECONDS = 10.0
CLOSING_SECONDS = 30.0  # for all engines to end, after the last row
START_ATTEMPTS = 3  # of a local Ray
OBJECT_STORE_BYTES = 500_000_000  # of a local Ray; rows are small, and it counts against /dev/shm


@dataclass(frozen=True)
class PoolSettings:
    """How many engines, and how much work each holds."""

    num_engines: int = 1
    gpus_per_engine: int = 1  # ignored on a machine without a GPU
    rows_in_flight: int = 64  # per engine
    ray_address: str | None = None  # None: a local Ray, unless RAY_ADDRESS names a cluster


@dataclass(frozen=True)
class Finished:
    """What a worker made of one row."""

    status: str
    payload: dict[str, Any]  # anything that JSON holds
    counts: dict[str, float]  # added to the progress counters


class RowWorker(Protocol):
    """What an engine actor does with a row. Made once per actor by the factory given to `run`."""

    @property
    def dead(self) -> bool:
        """Whether this worker can do no more and its process must be replaced."""
        ...

    async def work(self, row: dict[str, Any]) -> Finished:
        """Do one row of the source file.

        Raises:
            GeneratorError, VerifierError: infrastructure failed; the row is tried again.
        """
        ...

    def close(self) -> None:
        """End the worker's processes and give its shared memory back."""
        ...


class Tally:
    """Ray actor: counters of this run and the last infrastructure errors."""

    def __init__(self) -> None:
        self.counts: dict[str, float] = {}
        self.errors: list[str] = []

    def add(self, counts: dict[str, float]) -> None:
        """Add to the counters."""
        for name, value in counts.items():
            self.counts[name] = self.counts.get(name, 0) + value

    def fail(self, row_id: str, error: str) -> None:
        """Note a row that could not be finished."""
        self.add({"failed": 1})
        self.errors = [*self.errors[-9:], f"row {row_id!r}: {error}"]

    def read(self) -> tuple[dict[str, float], list[str]]:
        """The counters and errors so far."""
        return self.counts, self.errors


class EngineActor:
    """The class that Ray Data maps rows over: one worker, many rows concurrently."""

    def __init__(self, factory: Callable[[], RowWorker], tally: ray.actor.ActorHandle) -> None:
        self.tally = tally
        self.worker = factory()
        self.tally.add.remote({OPEN_ENGINES: 1})

    def __del__(self) -> None:
        """Ray Data's way to tell an actor that the work is done."""
        if hasattr(self, "worker"):
            self.worker.close()
            self.tally.add.remote({OPEN_ENGINES: -1})

    async def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The finished row, or nothing after `RETRIES` infrastructure errors: what is not written is done again."""
        error: Exception | None = None
        for attempt in range(1 + RETRIES):
            try:
                finished = await self.worker.work(row)
            except (GeneratorError, VerifierError) as caught:
                error = caught
                if self.worker.dead:
                    os._exit(1)  # Ray starts a new process and gives it this block again
                await asyncio.sleep(2.0**attempt)
                continue
            self.tally.add.remote(finished.counts)
            return [{ID: row[ID], STATUS: finished.status, PAYLOAD: json.dumps(finished.payload)}]
        self.tally.fail.remote(row[ID], str(error))
        return []


def connect(settings: PoolSettings) -> None:
    """Join the cluster at `ray_address` or RAY_ADDRESS, or start a Ray of this process alone."""
    variables = {**environment(), "RAY_DATA_DEFAULT_ASYNC_ROW_UDF_MAX_CONCURRENCY": str(ROWS_PER_BLOCK)}
    for name, value in variables.items():
        os.environ.setdefault(name, value)  # ray reads its own when it is imported
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    options["runtime_env"] = {"env_vars": variables}
    if settings.ray_address or os.environ.get("RAY_ADDRESS"):
        ray.init(address=settings.ray_address or "auto", **options)
        return
    # Engines use the cores through threads of their own, so the number of logical CPUs only counts actors and tasks.
    cpus = max(os.cpu_count() or 1, settings.num_engines + 4)
    options |= {"include_dashboard": False, "num_cpus": cpus, "object_store_memory": OBJECT_STORE_BYTES}
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(address="local", **options)
            return
        except Exception as error:  # Ray gives its node 30 s, which is not enough where others keep the cores busy
            ray.shutdown()
            if attempt == START_ATTEMPTS or "timed out during startup" not in str(error):
                raise
            print(f"ray: {error}; trying again", flush=True)


def run(
    source: Path,
    output: Path,
    checkpoint: Path,
    factory: Callable[[], RowWorker],
    pool: PoolSettings,
    report: Callable[[dict[str, float], float], str],
    total: int,
) -> list[str]:
    """Map every row of `source` that is not checkpointed yet, and write it to `output`.

    Args:
        source: one Parquet file with a unique text column `id`.
        output: directory that gets Parquet files with the finished rows.
        checkpoint: directory of Ray Data's row-level checkpoint.
        factory: makes the worker, inside the actor's process.
        pool: engines and rows in flight.
        report: counters and seconds to the line that is printed as progress.
        total: rows that this call has to do.

    Returns:
        The last infrastructure errors, one for each row that could not be finished; empty when all is done.
    """
    connect(pool)
    import ray

    try:
        tally = ray.remote(num_cpus=0)(Tally).remote()
        done = threading.Event()
        printer = threading.Thread(target=_print_progress, args=(tally, report, done), daemon=True)
        printer.start()
        try:
            _execute(source, output, checkpoint, factory, pool, tally, total)
        finally:
            done.set()
            printer.join()
            _await_closing(tally)
        errors: list[str] = ray.get(tally.read.remote())[1]
        return errors
    finally:
        ray.shutdown()


def _execute(
    source: Path,
    output: Path,
    checkpoint: Path,
    factory: Callable[[], RowWorker],
    pool: PoolSettings,
    tally: ray.actor.ActorHandle,
    total: int,
) -> None:
    """The Ray Data plan: read, map, write with a checkpoint."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data.checkpoint import CheckpointConfig

    context = DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # its log file in the session directory keeps the rest
    blocks = max(1, -(-total // ROWS_PER_BLOCK))
    tasks = max(1, pool.rows_in_flight // ROWS_PER_BLOCK)
    context.checkpoint_config = CheckpointConfig(
        id_column=ID, checkpoint_path=str(checkpoint), delete_checkpoint_on_success=False
    )
    try:
        rows = ray.data.read_parquet(str(source), override_num_blocks=blocks)
        finished = rows.flat_map(
            EngineActor,
            fn_constructor_args=(factory, tally),
            compute=ActorPoolStrategy(size=pool.num_engines, max_tasks_in_flight_per_actor=tasks),
            num_cpus=1,
            num_gpus=pool.gpus_per_engine if has_gpu() else 0,
            max_concurrency=tasks,
            max_restarts=MAX_RESTARTS,
        )
        finished.write_parquet(str(output))
    finally:
        context.checkpoint_config = None


def _await_closing(tally: ray.actor.ActorHandle) -> None:
    """Give the engines time to end by themselves: killed ones leave their shared memory behind."""
    import ray

    deadline = time.monotonic() + CLOSING_SECONDS
    while time.monotonic() < deadline and ray.get(tally.read.remote())[0].get(OPEN_ENGINES, 0) > 0:
        time.sleep(0.2)


def _print_progress(
    tally: ray.actor.ActorHandle, report: Callable[[dict[str, float], float], str], done: threading.Event
) -> None:
    """Print a line every few seconds until `done`. Rates count from the first engine's readiness on."""
    import ray

    started: float | None = None
    while not done.wait(PROGRESS_SECONDS):
        try:
            counts, _ = ray.get(tally.read.remote(), timeout=5)
        except (ray.exceptions.RayError, TimeoutError):
            continue  # the tally only informs; a lost reading is no reason to stop
        if not counts:
            print("engines are starting", flush=True)
            continue
        started = started or time.monotonic() - PROGRESS_SECONDS
        print(report(counts, time.monotonic() - started), flush=True)
