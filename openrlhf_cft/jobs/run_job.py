"""Runs a job over its work directory: what is not done yet, on a pool of engines, with progress."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from openrlhf_cft.data.provenance import write_json
from openrlhf_cft.data.source import NUMBER
from openrlhf_cft.errors import Failure, JobError
from openrlhf_cft.jobs.engine_actor import RowWorker
from openrlhf_cft.jobs.pipeline import PoolSettings, run
from openrlhf_cft.jobs.workdir import Workdir

SHOWN_FAILURES = 10  # rows that could not be finished and are printed


def run_job(
    work: Workdir,
    rows: int,
    factory: Callable[[], RowWorker],
    pool: PoolSettings,
    report: Callable[[dict[str, float], float, int], str],
    about: str = "",
) -> None:
    """Do what is not done yet; print progress, and the rows that could not be finished.

    Args:
        work: the directory of the job.
        rows: number of rows of the source.
        factory: makes the worker inside each actor.
        pool: engines and rows in flight.
        report: counters, seconds and rows of this run to a progress line.
        about: lines that are printed before an engine starts, where there is something to do.

    Raises:
        JobError: the job cannot go on; what is finished stays.
    """
    finished = repaired(work)
    if finished >= rows:  # unless some are there twice
        finished = len({row[NUMBER] for row in work.outcomes.rows([NUMBER])})
    if rows > finished:
        finish_rows(work, rows, rows - finished, factory, pool, report, about)


def repaired(work: Workdir) -> int:
    """Put the finished rows in order, see `Outcomes.repair`, and say what was cut: how many there are."""
    finished, cut = work.outcomes.repair()
    for name in cut:
        print(f"{work.name}: {name} in {work.outcomes.data} is cut; its rows are done again", flush=True)
    return finished


def finish_rows(
    work: Workdir,
    rows: int,
    left: int,
    factory: Callable[[], RowWorker],
    pool: PoolSettings,
    report: Callable[[dict[str, float], float, int], str],
    about: str = "",
    shown: Callable[[str], str] = str,
) -> None:
    """Do the rows of the prompts file that are not done; see `run_job`.

    Args:
        work: the directory of the job.
        rows: of the whole job, for what is printed.
        left: rows of it that are not done, at least 1.
        factory: makes the worker inside each actor.
        pool: engines and rows in flight.
        report: counters, seconds and rows of this run to a progress line.
        about: lines that are printed before an engine starts.
        shown: a row's id to the one that a user knows.

    Raises:
        JobError: the job cannot go on; what is finished stays.
    """
    print(f"{work.name}: {rows} rows, {rows - left} done before, {left} to do", flush=True)
    if about:
        print(about, flush=True)
    started, before = time.monotonic(), work.seconds

    def tick(counts: dict[str, float], seconds: float) -> str:
        write_json(work.root / "seconds.json", before + time.monotonic() - started)
        return f"{work.name}: {report(counts, seconds, left)}"

    try:
        failures = run(work.prompts, work.outcomes, factory, pool, tick, left, work.root / "engine.log")
    except JobError as error:
        _report(work, error.failures, shown)
        raise
    write_json(work.root / "seconds.json", before + time.monotonic() - started)
    _report(work, failures, shown)


def _report(work: Workdir, found: list[Failure], shown: Callable[[str], str]) -> None:
    """Print and keep what could not be finished."""
    failures = [failure._replace(id=shown(failure.id)) for failure in found]
    records = [{name: value for name, value in failure._asdict().items() if value} for failure in failures]
    (work.root / "failed.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for failure in failures[:SHOWN_FAILURES]:
        print(f"{work.name}: row {failure.id!r} failed, the next run retries it: {failure.error}")
    if len(failures) > SHOWN_FAILURES:
        print(f"{work.name}: all {len(failures)} failed rows are in {work.root / 'failed.jsonl'}")
