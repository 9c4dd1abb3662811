"""Runs a job over its work directory: does the remaining rows on a pool of engines, and shows progress."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from openrlhf_cft.data.provenance import write_json
from openrlhf_cft.data.source import NUMBER
from openrlhf_cft.errors import Failure, JobError
from openrlhf_cft.jobs.engine_actor import RowWorker
from openrlhf_cft.jobs.pipeline import PoolSettings, run
from openrlhf_cft.jobs.workdir import Workdir

logger = logging.getLogger(__name__)

SHOWN_FAILURES = 10  # so many of the rows that could not be finished are printed


def run_job(
    work: Workdir,
    rows: int,
    factory: Callable[[], RowWorker],
    pool: PoolSettings,
    report: Callable[[dict[str, float], float, int], str],
    about: str = "",
) -> None:
    """Do the rows that are not done yet. Print progress, and the rows that could not be finished.

    Args:
        work: the directory of the job.
        rows: number of rows of the source.
        factory: makes the worker inside each actor.
        pool: engines and rows in flight.
        report: turns counters, seconds and the number of rows of this run into a progress line.
        about: lines that are logged before an engine starts, if there are rows to do.

    Raises:
        JobError: the job cannot continue; finished rows are kept.
    """
    finished = repaired(work)
    if finished >= rows:  # some rows may be there twice, so count the different ones
        finished = len({row[NUMBER] for row in work.outcomes.rows([NUMBER])})
    if rows > finished:
        finish_rows(work, rows, rows - finished, factory, pool, report, about)


def repaired(work: Workdir) -> int:
    """Repair the finished rows, see `Outcomes.repair`, and say which files were cut. Returns the number of rows."""
    finished, cut = work.outcomes.repair()
    for name in cut:
        logger.warning("%s: %s in %s is cut; its rows are done again", work.name, name, work.outcomes.data)
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
        rows: number of rows of the whole job, for what is logged.
        left: number of these rows that are not done, at least 1.
        factory: makes the worker inside each actor.
        pool: engines and rows in flight.
        report: turns counters, seconds and the number of rows of this run into a progress line.
        about: lines that are logged before an engine starts.
        shown: turns a row's id into the one that a user knows.

    Raises:
        JobError: the job cannot continue; finished rows are kept.
    """
    logger.info("%s: %d rows, %d done before, %d to do", work.name, rows, rows - left, left)
    for line in about.splitlines():
        logger.info("%s", line)
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
    """Log the rows that could not be finished, and write them to a file."""
    failures = [failure._replace(id=shown(failure.id)) for failure in found]
    records = [{name: value for name, value in failure._asdict().items() if value} for failure in failures]
    (work.root / "failed.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for failure in failures[:SHOWN_FAILURES]:
        logger.warning("%s: row %r failed, the next run retries it: %s", work.name, failure.id, failure.error)
    if len(failures) > SHOWN_FAILURES:
        logger.warning("%s: all %d failed rows are in %s", work.name, len(failures), work.root / "failed.jsonl")
