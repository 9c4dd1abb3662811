"""Ray Data: read rows, map them over a pool of engine actors, write blocks with a checkpoint.

Every finished row is written once and never computed again: after a crash, the same call resumes where it stopped.
Rows that could not be finished are left out of the output, so the next call does them. `run` returns them with the
reason.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrlhf_cft.data.location import Location
from openrlhf_cft.data.records import ID, PROMPT, PROMPT_IDS
from openrlhf_cft.data.source import GIVEN_IDS, GOLD, NUMBER
from openrlhf_cft.engine.platform import uses_gpu
from openrlhf_cft.errors import Failure, InputError, JobError
from openrlhf_cft.jobs.cluster import connected, names_cluster
from openrlhf_cft.jobs.engine_actor import TALLY_SECONDS, EngineActor, RowWorker
from openrlhf_cft.jobs.finished_rows import Outcomes
from openrlhf_cft.jobs.gpus import await_gpus
from openrlhf_cft.jobs.progress import JobProgress
from openrlhf_cft.jobs.tally import Tally

if TYPE_CHECKING:
    import ray.actor

ROWS_AT_A_TIME = 16  # rows of one block that Ray Data starts together on an engine
# Rows that are written and checkpointed together: a crash undoes this many at most. The driver's memory and the number
# of files grow with the number of blocks, so a large job has larger blocks.
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 64
BLOCKS = 2_000  # a job with more blocks than this gets larger ones
SHARES = 4  # blocks per engine, at least, if rows are few: AIME's 30 rows in blocks of 16 would keep two engines busy
CLOSING_SECONDS = 300.0  # limit for an engine that never ends; long, so that a slow one is not killed


@dataclass(frozen=True)
class PoolSettings:
    """The number of engines, and the amount of work that each one holds."""

    num_engines: int = 1
    gpus_per_engine: int = 1  # ignored if vLLM is built for CPUs
    rows_in_flight: int = 64  # per engine
    ray_address: str | None = None  # None: a local Ray, unless RAY_ADDRESS names a cluster
    may_share_gpus: bool = False  # several engines on a GPU, see `await_gpus`

    def __post_init__(self) -> None:
        if self.num_engines < 1:
            raise InputError(f"--vllm.num_engines: {self.num_engines} must be at least 1")
        if self.rows_in_flight < 1:
            raise InputError(f"--vllm.rows_in_flight: {self.rows_in_flight} must be at least 1")


def run(
    source: Location,
    outcomes: Outcomes,
    factory: Callable[[], RowWorker],
    pool: PoolSettings,
    report: Callable[[dict[str, float], float], str],
    total: int,
    engine_log: Location,
) -> list[Failure]:
    """Map every row of `source` that is not checkpointed yet, and write it to `outcomes`.

    Args:
        source: one Parquet file with a unique text column `id`, and the number of each row.
        outcomes: receives files with the finished rows, and their checkpoint. The caller has repaired it.
        factory: makes the worker, inside the actor's process.
        pool: engines and rows in flight.
        report: turns counters and seconds into the printed progress line.
        total: number of rows that this call has to do.
        engine_log: receives the log of the last engine that failed, if one did.

    Returns:
        The rows that could not be finished, with the reason; empty if all are done.

    Raises:
        JobError: the job cannot continue.
    """
    with connected(pool.ray_address, pool.num_engines):
        gpus = 0.0  # per engine
        if uses_gpu():
            joined = names_cluster(pool.ray_address)
            gpus = await_gpus(pool.num_engines, pool.gpus_per_engine, joined, pool.may_share_gpus)
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(node, soft=True)  # so that the tally outlives other nodes
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        tally = ray.remote(Tally).options(**options).remote(pool.num_engines)
        try:
            with JobProgress(tally, report, total):
                _execute(source, outcomes, factory, pool, gpus, tally, total)
                _await_closing(tally)
        except (ray.exceptions.RayError, OSError) as error:
            raise _ended(error, tally, engine_log) from error
        _keep_log(tally, engine_log)
        failures: list[Failure] = ray.get(tally.read.remote())[2]
        return failures


def _execute(
    source: Location,
    outcomes: Outcomes,
    factory: Callable[[], RowWorker],
    pool: PoolSettings,
    gpus: float,
    tally: ray.actor.ActorHandle,
    total: int,
) -> None:
    """The Ray Data plan: read, map, write with a checkpoint."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data.checkpoint import CheckpointConfig

    context = DataContext.get_current()
    logger = logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.CRITICAL)  # its log file in the session directory keeps the rest
    block = rows_per_block(total, pool.num_engines)
    tasks = blocks_in_flight(total, block, pool)
    context.checkpoint_config = CheckpointConfig(
        id_column=ID,
        checkpoint_path=outcomes.checkpoint.path,
        override_filesystem=outcomes.checkpoint.filesystem,
        delete_checkpoint_on_success=False,
    )
    try:
        # Without partitioning: by default the folder of runs/prompt=short/ would replace our column `prompt`.
        columns = _needed(source)
        rows = ray.data.read_parquet(source.path, filesystem=source.filesystem, columns=columns, partitioning=None)
        rows = rows.repartition(target_num_rows_per_block=block, strict=True)
        finished = rows.flat_map(
            EngineActor,
            fn_constructor_args=(factory, tally, pool.rows_in_flight),
            compute=ActorPoolStrategy(size=pool.num_engines, max_tasks_in_flight_per_actor=tasks),
            num_cpus=1,
            num_gpus=gpus,
            max_concurrency=tasks,
            max_restarts=-1,  # the tally bounds them
        )
        finished.write_parquet(outcomes.data.path, filesystem=outcomes.data.filesystem)
    finally:
        context.checkpoint_config = None
        context.enable_progress_bars = bars
        logger.setLevel(level)


def rows_per_block(total: int, engines: int) -> int:
    """How many rows are written and checkpointed together, in a run of `total` rows on `engines` engines."""
    smallest = min(max(1, total // (SHARES * engines)), SMALLEST_BLOCK)
    return min(max(smallest, -(-total // BLOCKS)), LARGEST_BLOCK)


def blocks_in_flight(total: int, block: int, pool: PoolSettings) -> int:
    """How many blocks one engine works on at a time: at most its share, or the first one to start would take all."""
    blocks = -(-total // block)
    share = -(-blocks // pool.num_engines)
    return max(1, min(pool.rows_in_flight // min(block, ROWS_AT_A_TIME), share))


def _needed(source: Location) -> list[str]:
    """The columns that workers read. The source's other columns are not loaded, so their types do not matter."""
    import pyarrow.parquet as pq

    with source.open_input() as file:
        names = pq.read_schema(file).names
    return [name for name in (ID, NUMBER, GOLD, PROMPT, PROMPT_IDS, GIVEN_IDS) if name in names]


def _keep_log(tally: ray.actor.ActorHandle, engine_log: Location) -> bool:
    """Write the log of the last engine that failed; returns whether there is one. It only informs: it never raises."""
    import ray

    try:
        text: str = ray.get(tally.engine_log.remote(), timeout=TALLY_SECONDS)
        if text:
            engine_log.write_text(text)
    except (ray.exceptions.RayError, OSError):  # the tally is gone, or the disk is full
        return False
    return bool(text)


def _ended(error: BaseException, tally: ray.actor.ActorHandle, engine_log: Location) -> JobError:
    """Why the job had to end: the tally's reason, or else the cause inside the exception that Ray has wrapped."""
    import ray

    reason: str | None = None
    failures: list[Failure] = []
    kept = False
    try:
        answers = ray.get([tally.reason.remote(), tally.read.remote()], timeout=TALLY_SECONDS)
        reason, failures = answers[0], answers[1][2]
        kept = _keep_log(tally, engine_log)
    except ray.exceptions.RayError:  # the tally may have died with the cluster
        pass
    text = ""
    cause: BaseException | None = error
    while isinstance(cause, BaseException):
        text = str(cause) or text
        cause = getattr(cause, "cause", None) or cause.__cause__
    log = f"; the engine's log is {engine_log}" if kept else ""
    return JobError(f"{reason or text}{log}", failures)


def _await_closing(tally: ray.actor.ActorHandle) -> None:
    """Give the engines time to end by themselves: if they are killed, they leave their shared memory behind."""
    import ray

    deadline = time.monotonic() + CLOSING_SECONDS
    while time.monotonic() < deadline and ray.get(tally.read.remote())[1] > 0:
        time.sleep(0.2)
