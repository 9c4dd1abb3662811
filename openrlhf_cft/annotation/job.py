"""The annotation job: the Ray pipeline over a work directory, the finished data set, the summary.

An output directory holds the Parquet files of the annotated data set (`writer.py`), and in `.annotate/` the state of
the job (`jobs.workdir`) with `summary.json`, written last: its presence means that every row is done.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from openrlhf_cft.annotation.annotator import Status
from openrlhf_cft.annotation.row_worker import AnnotateWorkerFactory, settings_record
from openrlhf_cft.annotation.writer import write_dataset
from openrlhf_cft.data.location import Location
from openrlhf_cft.data.provenance import versions, write_json
from openrlhf_cft.data.source import SourceSettings
from openrlhf_cft.errors import JobError
from openrlhf_cft.jobs.pipeline import PoolSettings
from openrlhf_cft.jobs.progress import annotation_line
from openrlhf_cft.jobs.run_job import run_job
from openrlhf_cft.jobs.workdir import Workdir

STATE = ".annotate"
LOW_CRITICAL_SHARE = 0.05  # the paper's hint: under this the criterion is too strict for the model


@dataclass(frozen=True)
class AnnotateJob:
    """Everything that the command line says."""

    source: SourceSettings
    factory: AnnotateWorkerFactory
    pool: PoolSettings
    output_dir: Location


def annotate(job: AnnotateJob) -> dict[str, Any]:
    """Run or resume the job, then write the data set of the rows that are annotated.

    Returns:
        The summary, as in `summary.json`; `failed` counts the rows that this call could not finish, and the summary is
        stored only when there are none.

    Raises:
        InputError: bad input, before any engine starts; the message names the value.
        JobError: the job cannot go on; what is finished stays.
    """
    work = Workdir(job.output_dir / STATE, "annotate")
    with work.claimed():
        config = work.prepare(job.source, job.factory.engine, settings_record(job.factory))
        finished = work.root / "summary.json"
        if finished.exists():
            print(f"annotate: {job.output_dir} is complete; delete it to annotate anew")
            return dict(json.loads(finished.read_text()))
        work.try_verifier(job.factory.verifier)
        try:
            run_job(work, config["rows"], job.factory, job.pool, annotation_line)
        except JobError as error:
            if error.failures:  # the rows that are left may be those that never will be done
                write_dataset(job.output_dir, work, config)
            raise
        summary = annotation_summary(config, write_dataset(job.output_dir, work, config), work.seconds)
        if summary["failed"] == 0:
            write_json(finished, summary)
        return summary


def annotation_summary(config: dict[str, Any], totals: dict[str, float], seconds: float) -> dict[str, Any]:
    """Totals over all runs into this directory: rows by status, positions, rollouts, rates."""
    positions, compared = totals.get("positions", 0), int(totals.get("mask_bits_compared", 0))
    summary: dict[str, Any] = {
        "rows_read": config["rows"],
        **{status.value: int(totals.get(status.value, 0)) for status in Status},
        "failed": config["rows"] - int(totals.get("rows", 0)),
        "positions": int(positions),
        "critical_tokens": int(totals.get("critical", 0)),
        "critical_share": totals.get("critical", 0) / positions if positions else None,
        "rollouts": int(totals.get("rollouts", 0)),
        "rollouts_skipped": int(totals.get("skipped", 0)),
        "decoded_tokens": int(totals.get("decoded_tokens", 0)),
        "seconds": seconds,
        "rollouts_per_second": totals.get("rollouts", 0) / seconds if seconds else None,
        "tokens_per_second": totals.get("decoded_tokens", 0) / seconds if seconds else None,
        "config": config,
        "versions": versions(),
    }
    if totals.get("passed_over"):
        summary["ids_without_text"] = int(totals["passed_over"])
    if compared:
        summary |= {"mask_bits_compared": compared, "mask_bits_changed": int(totals.get("mask_bits_changed", 0))}
    return summary


def annotation_text(summary: dict[str, Any]) -> str:
    """The summary as the lines that end a run."""
    lines = [
        f"rows read           {summary['rows_read']}",
        f"  wrong             {summary[Status.WRONG.value]}   (ended by itself, not the gold answer)",
        f"  cut off           {summary[Status.CUT_OFF.value]}   (ran out of --annotate.max_new_tokens)",
        f"  prompt too long   {summary[Status.TOO_LONG.value]}",
        f"  bad gold answer   {summary[Status.BAD_ANSWER.value]}   (the verifier refuses it)",
        f"  not finished      {summary['failed']}   (left for the next run)",
        f"  annotated         {summary[Status.ANNOTATED.value]}",
        f"positions           {summary['positions']}",
        f"rollouts            {summary['rollouts']}   ({summary['rollouts_skipped']} skipped: token already decided)",
        f"decoded tokens      {summary['decoded_tokens']}",
        f"seconds             {summary['seconds']:.1f}",
    ]
    if "ids_without_text" in summary:
        lines.append(
            f"ids without text    {summary['ids_without_text']}   (no alternatives: the tokenizer has none of them)"
        )
    share = summary["critical_share"]
    if share is None:
        return "\n".join([*lines, "critical share      none: no response was correct and ended by itself"])
    lines.append(f"critical share      {share:.1%}   ({summary['critical_tokens']} tokens)")
    if summary["seconds"]:
        lines.append(
            f"rates               {summary['rollouts_per_second']:.1f} rollouts/s, "
            f"{summary['tokens_per_second']:.0f} decoded tokens/s, start of the engines included"
        )
    if "mask_bits_compared" in summary:
        changed, compared = summary["mask_bits_changed"], summary["mask_bits_compared"]
        lines.append(f"mask bits changed   {changed} of {compared}   ({changed / compared:.2%}, against the source's)")
    if share < LOW_CRITICAL_SHARE:
        lines.append(
            f"hint: under {LOW_CRITICAL_SHARE:.0%} of the tokens are critical; the criterion may be too strict "
            "for this model, try --annotate.top_k 2"
        )
    return "\n".join(lines)
