"""The annotation job: the Ray pipeline over a work directory, the finished data set, the summary.

An output directory holds the Parquet files of the annotated data set, and in `.annotate/` the state of the job (see
`workdir.py`) with `summary.json`, written last: its presence means done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrlhf_cft.annotate.annotator import Status
from openrlhf_cft.annotate.pipeline import PAYLOAD, STATUS, PoolSettings
from openrlhf_cft.annotate.source import GIVEN_IDS, GOLD, SourceSettings
from openrlhf_cft.annotate.workdir import Workdir, progress, versions, write_json
from openrlhf_cft.annotate.worker import AnnotateWorkerFactory, settings_record
from openrlhf_cft.records import ID, MASK, METADATA_KEY, PROMPT_IDS, RESPONSE_IDS, annotation_fields, read_rows

if TYPE_CHECKING:
    import pyarrow as pa

STATE = ".annotate"
LOW_CRITICAL_SHARE = 0.05  # the paper's hint: under this the criterion is too strict for the model
ROWS_PER_FILE = 50_000


@dataclass(frozen=True)
class AnnotateJob:
    """Everything that the command line says."""

    source: SourceSettings
    factory: AnnotateWorkerFactory
    pool: PoolSettings
    output_dir: Path


def annotate(job: AnnotateJob) -> dict[str, Any]:
    """Run or resume the job.

    Returns:
        The summary, as in `summary.json`; `failed` counts the rows that this call could not finish.

    Raises:
        ValueError: bad input, before any engine starts; the message names the value.
    """
    work = Workdir(job.output_dir / STATE, "annotate")
    config = work.prepare(job.source, job.factory.engine.model, settings_record(job.factory))
    finished = work.root / "summary.json"
    if finished.exists():
        print(f"annotate: {job.output_dir} is complete; delete it to annotate anew")
        return dict(json.loads(finished.read_text()))
    work.try_verifier(job.factory.verifier)
    work.run(config["rows"], job.factory, job.pool, _progress)
    summary = summarize(work, config)
    if summary["failed"] == 0:
        summary |= _compare(work)
        _write_dataset(job.output_dir, work, config)
        write_json(finished, summary)
    return summary


def _progress(counts: dict[str, float], seconds: float, total: int) -> str:
    """The progress line of annotation."""
    positions = counts.get("positions", 0)
    share = f"{counts.get('critical', 0) / positions:.1%} critical" if positions else "none critical yet"
    detail = (
        f"{counts.get(Status.ANNOTATED.value, 0):.0f} annotated, {positions:.0f} positions, {share}, "
        f"{counts.get('rollouts', 0) / seconds:.1f} rollouts/s"
    )
    return progress(counts, seconds, total, detail)


def summarize(work: Workdir, config: dict[str, Any]) -> dict[str, Any]:
    """Totals over all runs into this directory, from what is on disk: rows by status, positions, rollouts, rates."""
    totals: dict[str, float] = {name: 0 for name in ("rows", *(status.value for status in Status))}
    for row in work.outcomes([PAYLOAD]):
        for name, value in json.loads(row[PAYLOAD])["counts"].items():
            totals[name] = totals.get(name, 0) + value
    positions, seconds = totals.get("positions", 0), work.seconds
    return {
        "rows_read": config["rows"],
        **{status.value: int(totals[status.value]) for status in Status},
        "failed": config["rows"] - int(totals["rows"]),
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


def describe(summary: dict[str, Any]) -> str:
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


def _annotated(work: Workdir) -> Iterator[dict[str, Any]]:
    """The annotated rows in the order of the source, each exactly once."""
    payloads: dict[str, str] = {}
    for row in work.outcomes([ID, STATUS, PAYLOAD]):
        assert row[ID] not in payloads, f"row {row[ID]!r} was written twice"
        payloads[row[ID]] = row[PAYLOAD] if row[STATUS] == Status.ANNOTATED.value else ""
    for source in read_rows(work.prompts):
        payload = payloads[source[ID]]
        if payload:
            annotation = json.loads(payload)
            del annotation["counts"], source[GOLD]
            source.pop(GIVEN_IDS, None)
            yield {**source, **annotation}


def _compare(work: Workdir) -> dict[str, int]:
    """Where the source had masks of the same tokens: how many bits there were, and how many are others now."""
    compared = changed = 0
    for row in _annotated(work):
        before = row.get(f"source_{MASK}")
        same = all(row.get(f"source_{name}") == row[name] for name in (PROMPT_IDS, RESPONSE_IDS))
        if same and isinstance(before, list) and len(before) == len(row[MASK]) and None not in before:
            compared += len(before)
            changed += sum((old > 0) != (new > 0) for old, new in zip(before, row[MASK], strict=True))
    return {"mask_bits_compared": compared, "mask_bits_changed": changed} if compared else {}


def _schema(work: Workdir, config: dict[str, Any]) -> pa.Schema:
    """The source's own columns, then the annotation's, with the configuration as file metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    added = annotation_fields()
    source = [field for field in pq.read_schema(work.prompts) if field.name not in added]
    fields = [pa.field(ID, added[ID])] + [field for field in source if field.name not in (GOLD, GIVEN_IDS)]
    fields += [pa.field(name, kind) for name, kind in added.items() if name != ID]
    stored = json.dumps({**config, "versions": versions()}).encode()
    return pa.schema(fields, metadata={METADATA_KEY: stored})


def _write_dataset(output_dir: Path, work: Workdir, config: dict[str, Any]) -> None:
    """Write the annotated rows beside the state directory: files appear whole, and writing again changes nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(work, config)
    rows = list(_annotated(work))
    for number, start in enumerate(range(0, max(len(rows), 1), ROWS_PER_FILE)):
        table = pa.Table.from_pylist(rows[start : start + ROWS_PER_FILE], schema=schema)
        partial = work.root / "part.partial"
        pq.write_table(table, partial)
        os.replace(partial, output_dir / f"part-{number:05d}.parquet")
