"""The annotation job: the Ray pipeline over a work directory, the finished data set, the summary.

An output directory holds the Parquet files of the annotated data set (`writer.py`). Its `.annotate/` holds the state
of the job (`jobs.workdir`), and `summary.json`. That file is written last: if it exists, every row is done.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

from openrlhf_cft.annotation.row_worker import AnnotateWorkerFactory, settings_record
from openrlhf_cft.annotation.summary import annotation_summary
from openrlhf_cft.annotation.writer import write_dataset
from openrlhf_cft.data.location import Location
from openrlhf_cft.data.provenance import write_json
from openrlhf_cft.data.source import SourceSettings
from openrlhf_cft.errors import InputError, JobError
from openrlhf_cft.jobs.pipeline import PoolSettings
from openrlhf_cft.jobs.progress import annotation_line
from openrlhf_cft.jobs.run_job import run_job
from openrlhf_cft.jobs.workdir import Workdir

logger = logging.getLogger(__name__)

STATE = ".annotate"


@dataclass(frozen=True)
class AnnotateJob:
    """All settings of the command line."""

    source: SourceSettings
    factory: AnnotateWorkerFactory
    pool: PoolSettings
    output_dir: Location


def annotate(job: AnnotateJob) -> dict[str, Any]:
    """Run or resume the job, then write the annotated rows as a data set.

    Returns:
        The summary, as in `summary.json`. `failed` counts the rows that this call could not finish. The summary is
        stored only if there are none.

    Raises:
        InputError: bad input, before any engine starts; the message names the value.
        JobError: the job cannot continue; finished rows are kept.
    """
    work = Workdir(job.output_dir / STATE, "annotate")
    with work.claimed():
        if not work.config.exists():
            _refuse_others(job.output_dir)
        config = work.prepare(job.source, job.factory.engine, settings_record(job.factory))
        finished = work.root / "summary.json"
        if finished.exists():
            logger.info("annotate: %s is complete; delete it to annotate anew", job.output_dir)
            return dict(json.loads(finished.read_text()))
        work.try_verifier(job.factory.verifier)
        try:
            about = work.first_prompt(job.factory.engine, job.factory.settings.stop)
            run_job(work, config["rows"], job.factory, job.pool, annotation_line, about)
        except JobError as error:
            if error.failures:  # the remaining rows may never succeed, so write the others now
                write_dataset(job.output_dir, work, config)
            raise
        summary = annotation_summary(config, write_dataset(job.output_dir, work, config), work.seconds)
        if summary["failed"] == 0:
            write_json(finished, summary)
        return summary


def _refuse_others(output_dir: Location) -> None:
    """Refuse a directory with Parquet files that no annotation in it has made: writing ours would delete them."""
    files = output_dir.files(".parquet")
    if files:
        raise InputError(
            f"--ckpt.output_dir: {str(output_dir)!r} holds another data set ({files[0].name}); give another directory"
        )
