"""Write the annotated data set from finished rows: in the source's order, each row once, in bounded memory."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from openrlhf_cft.annotation.annotator import Status
from openrlhf_cft.data.location import Location
from openrlhf_cft.data.parquet import PartFiles
from openrlhf_cft.data.provenance import versions
from openrlhf_cft.data.records import ID, MASK, METADATA_KEY, PROMPT_IDS, RESPONSE_IDS, annotation_fields
from openrlhf_cft.data.source import GIVEN_IDS, GOLD, NUMBER
from openrlhf_cft.jobs.engine_actor import COUNTS, PAYLOAD, STATUS
from openrlhf_cft.jobs.finished_rows import Batch
from openrlhf_cft.jobs.workdir import Workdir

if TYPE_CHECKING:
    import pyarrow as pa

OWN = (GOLD, NUMBER, GIVEN_IDS)  # columns of the prompts file that are not part of the data set


def write_dataset(output_dir: Location, work: Workdir, config: dict[str, Any]) -> dict[str, float]:
    """Write the annotated rows beside the state directory. Files appear whole, and writing again changes nothing.

    Returns:
        The totals of the counters of all finished rows, including `rows`. If the source had masks of the same tokens,
        also `mask_bits_compared`, and `mask_bits_changed`: how many of these bits are different now.
    """
    totals: Counter[str] = Counter()
    schema = _schema(work, config)
    with PartFiles(
        schema, lambda number: output_dir / f"part-{number:05d}.parquet", work.root / "part.partial"
    ) as parts:
        for batch in work.outcomes.in_order(work.prompts):
            payloads = {index: json.loads(row[PAYLOAD]) for index, row in batch.done.items()}
            for payload in payloads.values():
                totals.update(payload.pop(COUNTS))
            annotated = [index for index in sorted(payloads) if batch.done[index][STATUS] == Status.ANNOTATED.value]
            if annotated:
                table = _table(batch, annotated, payloads, schema)
                totals.update(_compared(table))
                parts.write(table)
    _delete_others(output_dir, parts.files)
    return dict(totals)


def _delete_others(output_dir: Location, files: list[Location]) -> None:
    """Delete the files of an earlier run that had more rows."""
    written = {file.name for file in files}
    for file in output_dir.files(".parquet"):
        if file.name.startswith("part-") and file.name not in written:
            file.delete()


def _table(batch: Batch, rows: list[int], payloads: dict[int, dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Some rows of a batch: the source's own columns unchanged, and the columns of the annotation."""
    import pyarrow as pa

    annotated = [payloads[index] for index in rows]
    source = batch.source.take(pa.array(rows))
    columns = [
        pa.array([payload[field.name] for payload in annotated], field.type)
        if field.name in annotated[0]
        else source[field.name]
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _compared(table: pa.Table) -> dict[str, int]:
    """Compare with the source's masks, for rows whose tokens are the same: how many bits, and how many changed."""
    names = [MASK, PROMPT_IDS, RESPONSE_IDS]
    if not all(f"source_{name}" in table.column_names for name in names):
        return {}
    compared = changed = 0
    for row in table.select([*names, *(f"source_{name}" for name in names)]).to_pylist():
        before = row[f"source_{MASK}"]
        same = all(row[f"source_{name}"] == row[name] for name in names[1:])
        if same and isinstance(before, list) and len(before) == len(row[MASK]) and None not in before:
            compared += len(before)
            changed += sum((old > 0) != (new > 0) for old, new in zip(before, row[MASK], strict=True))
    return {"mask_bits_compared": compared, "mask_bits_changed": changed}


def _schema(work: Workdir, config: dict[str, Any]) -> pa.Schema:
    """The source's own columns, then the annotation's, with the configuration as file metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    decoding = config.get("decoding") or {}
    added = annotation_fields(decoding.get("keep_rollouts", False), samples=bool(decoding.get("samples")))
    with work.prompts.open_input() as file:
        source = [field for field in pq.read_schema(file) if field.name not in added]
    fields = [pa.field(ID, added[ID])] + [field for field in source if field.name not in OWN]
    fields += [pa.field(name, kind) for name, kind in added.items() if name != ID]
    stored = json.dumps({**config, "versions": versions()}).encode()
    return pa.schema(fields, metadata={METADATA_KEY: stored})
