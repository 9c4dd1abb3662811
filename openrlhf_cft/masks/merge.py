"""`masks merge`: join several annotated data sets, one after the other, with each id once.

The result has the columns of all; a row has null where its own data set lacks a column. Memory holds a digest of each
row, and no more than that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from openrlhf_cft.data.annotated import AnnotatedData, Row, with_record, write
from openrlhf_cft.data.location import Location
from openrlhf_cft.data.provenance import versions
from openrlhf_cft.data.records import ID, PROMPT_IDS, RESPONSE_IDS
from openrlhf_cft.data.tokenizer import fingerprint_of, require_one_tokenizer
from openrlhf_cft.errors import InputError
from openrlhf_cft.masks.compare import digest
from openrlhf_cft.masks.derive import DERIVED
from openrlhf_cft.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa

MERGED = "merged"  # in the file metadata: name and metadata of each data set
ON_DUPLICATE = {
    "error": "an id that occurs again ends the command",
    "first": "the first row of an id is kept",
    "distinct": "rows of one id are kept where their tokens differ, the later ones as ID#2, ID#3",
}


def merge(inputs: Sequence[AnnotatedData], on_duplicate: str, out: Location) -> dict[str, int]:
    """Write all rows to `out`.

    Args:
        inputs: at least one.
        on_duplicate: a name in `ON_DUPLICATE`.
        out: the location that `data.annotated.output` returned.

    Returns:
        Counts of rows: `rows` written, `dropped`, `renamed`.

    Raises:
        InputError: tokenizers differ, the types of a column do not fit together, or an id occurs again and may not.
    """
    require_one_tokenizer(inputs)
    columns = _union(inputs)
    if on_duplicate == "distinct" and not str(columns.field(ID).type).endswith("string"):
        raise InputError(f"--on_duplicate distinct: ids are {columns.field(ID).type}, and renamed ones are text")
    schema = with_record(columns, MERGED, [{"name": data.name, **data.metadata} for data in inputs])
    schema = with_record(schema, "merged_by", {"on_duplicate": on_duplicate, "versions": versions()})
    counts: Counter[str] = Counter(dropped=0, renamed=0)
    rows = write(out, schema, _rows(inputs, on_duplicate, schema, counts))
    return {"rows": rows, **counts}


def _union(inputs: Sequence[AnnotatedData]) -> pa.Schema:
    """The columns of all, with the metadata that all agree on."""
    import pyarrow as pa

    try:
        plain = [data.schema.remove_metadata() for data in inputs]
        schema = pa.unify_schemas(plain, promote_options="permissive")  # such as int32 and int64, or one more field
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"a column has types that do not fit together: {str(error).splitlines()[0]}") from None
    metadata = dict(inputs[0].schema.metadata or {})
    for data in inputs[1:]:
        schema_metadata = data.schema.metadata or {}
        metadata = {key: value for key, value in metadata.items() if schema_metadata.get(key) == value}
    schema = schema.with_metadata(metadata)
    common: dict[str, Any] = inputs[0].metadata
    for data in inputs[1:]:
        common = {key: value for key, value in common.items() if data.metadata.get(key) == value}
    fingerprints = [found for found in map(fingerprint_of, inputs) if found]
    if len(fingerprints) == len(inputs):  # they mean the same, and training requires one
        common["tokenizer_fingerprint"] = fingerprints[0]
    derived: dict[str, Any] = {}
    for data in reversed(inputs):  # also columns that only some have; `merged` shows where one was made differently
        derived |= data.metadata.get(DERIVED, {})
    if derived:
        common[DERIVED] = derived
    for key, value in common.items():
        schema = with_record(schema, key, value)
    return schema


def _rows(
    inputs: Sequence[AnnotatedData], on_duplicate: str, schema: pa.Schema, counts: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """The batches of all data sets as `schema`, without what `on_duplicate` leaves out."""
    import pyarrow as pa

    names = _Names(on_duplicate, counts)
    progress = Progress("masks merge", sum(data.count() for data in inputs))
    for data in inputs:
        tokens = [name for name in (ID, PROMPT_IDS, RESPONSE_IDS) if name in data.schema.names]
        for batch in data.batches():
            ids = [names.of(row, data.name) for row in batch.select(tokens).to_pylist()]
            kept = [index for index, row_id in enumerate(ids) if row_id is not None]
            progress.add(batch.num_rows)
            if kept:
                new_ids = pa.array([ids[index] for index in kept], schema.field(ID).type)
                yield _as(batch.take(pa.array(kept)), new_ids, schema)


class _Names:
    """Gives ids to rows, each id once."""

    def __init__(self, on_duplicate: str, counts: Counter[str]) -> None:
        self._on_duplicate, self._counts = on_duplicate, counts
        self._seen: dict[Any, set[bytes]] = {}  # digests of the tokens of each id

    def of(self, row: Row, source: str) -> Any | None:
        """The id that a row is written with; None if the row is left out."""
        row_id = row[ID]
        if row_id not in self._seen:
            self._seen[row_id] = {_tokens(row)}
            return row_id
        if self._on_duplicate == "error":
            raise InputError(f"id {row_id!r} of {source!r} is a duplicate: give --on_duplicate first or distinct")
        if self._on_duplicate == "first" or _tokens(row) in self._seen[row_id]:
            self._counts["dropped"] += 1
            return None
        self._seen[row_id].add(_tokens(row))
        self._counts["renamed"] += 1
        number = len(self._seen[row_id])
        while f"{row_id}#{number}" in self._seen:
            number += 1
        self._seen[f"{row_id}#{number}"] = {_tokens(row)}
        return f"{row_id}#{number}"


def _tokens(row: Row) -> bytes:
    return digest([*(row.get(PROMPT_IDS) or []), -1, *row[RESPONSE_IDS]])


def _as(batch: pa.RecordBatch, ids: pa.Array, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with all columns of `schema`; a column that it lacks is null."""
    import pyarrow as pa

    columns = []
    for field in schema:
        if field.name == ID:
            columns.append(ids)
        elif field.name in batch.schema.names:
            try:
                columns.append(batch.column(field.name).cast(field.type))
            except pa.ArrowInvalid as error:
                raise InputError(f"column {field.name!r} does not fit {field.type}: {error}") from None
        else:
            columns.append(pa.nulls(batch.num_rows, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)
