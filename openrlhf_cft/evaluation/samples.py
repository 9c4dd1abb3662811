"""The responses of an evaluation: one Parquet file per checkpoint and data set, one row per response, one schema.

    for question in read_questions(location("evaluation/samples/test--cft.parquet")): ...

The rows of a question follow each other, its greedy response first. `datasets`, pandas and pyarrow read the directory
as one table.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openrlhf_cft.data.location import Location
from openrlhf_cft.data.parquet import whole_file
from openrlhf_cft.data.records import ID, RESPONSE, RESPONSE_IDS, VERDICT, Verdict
from openrlhf_cft.data.source import GOLD
from openrlhf_cft.jobs.engine_actor import PAYLOAD, STATUS
from openrlhf_cft.jobs.finished_rows import Batch
from openrlhf_cft.jobs.workdir import Workdir

if TYPE_CHECKING:
    import pyarrow as pa

EVALUATED, TOO_LONG = "evaluated", "too_long"  # the status of a question


@dataclass(frozen=True)
class SampledResponse:
    """One response of a checkpoint."""

    text: str
    token_ids: list[int]  # (T,), the stop token included
    answer: str | None  # that the verifier found in it
    verdict: Verdict
    score: float | None  # the verifier's, in [0, 1]
    stopped: bool  # ended by itself, not by the budget

    @property
    def correct(self) -> bool:
        """Whether the verifier accepts it."""
        return self.verdict is Verdict.CORRECT

    @property
    def length(self) -> int:
        """T, in tokens."""
        return len(self.token_ids)


@dataclass(frozen=True)
class SampledQuestion:
    """One question, and a checkpoint's responses to it."""

    id: str
    gold: str
    greedy: SampledResponse
    samples: list[SampledResponse]


def to_payload(response: SampledResponse) -> dict[str, Any]:
    """A response as JSON, by the names of its columns."""
    return {
        RESPONSE: response.text,
        RESPONSE_IDS: response.token_ids,
        "answer": response.answer,
        VERDICT: response.verdict.value,
        "score": response.score,
        "stopped": response.stopped,
    }


def from_row(row: Mapping[str, Any]) -> SampledResponse:
    """The inverse of `to_payload`."""
    verdict = Verdict(row[VERDICT])
    return SampledResponse(row[RESPONSE], row[RESPONSE_IDS], row["answer"], verdict, row["score"], row["stopped"])


def schema() -> pa.Schema:
    """The columns of a samples file."""
    import pyarrow as pa

    return pa.schema(
        [
            ("dataset", pa.string()),
            ("checkpoint", pa.string()),
            (ID, pa.string()),
            ("gold", pa.string()),
            ("greedy", pa.bool_()),
            ("number", pa.int32()),  # of the sample, from 0; 0 for the greedy response
            (RESPONSE, pa.string()),
            (RESPONSE_IDS, pa.list_(pa.int32())),
            ("answer", pa.string()),
            (VERDICT, pa.string()),
            ("score", pa.float32()),
            ("length", pa.int32()),
            ("stopped", pa.bool_()),
        ]
    )


def write_samples(work: Workdir, dataset: str, checkpoint: str, file: Location) -> dict[str, int]:
    """Write the finished questions of a work directory, in the source's order. Writing again changes nothing.

    Returns:
        The number of questions that were `evaluated`, and of those that were `too_long`.
    """
    counts = {EVALUATED: 0, TOO_LONG: 0}
    with whole_file(file, schema()) as writer:
        for batch in work.outcomes.in_order(work.prompts):
            for done in batch.done.values():
                counts[done[STATUS]] += 1
            rows = [{"dataset": dataset, "checkpoint": checkpoint, **row} for row in _rows(batch)]
            if rows:
                writer.write_table(_table(rows))
    return counts


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=schema())


def _rows(batch: Batch) -> Iterator[dict[str, Any]]:
    """The responses of some questions."""
    golds = batch.source[GOLD].to_pylist()
    for index in sorted(batch.done):
        done = batch.done[index]
        if done[STATUS] != EVALUATED:
            continue
        payload = json.loads(done[PAYLOAD])
        responses = [(True, 0, payload["greedy"])]
        responses += [(False, number, sample) for number, sample in enumerate(payload["samples"])]
        for greedy, number, response in responses:
            own = {ID: done[ID], "gold": golds[index], "greedy": greedy, "number": number}
            yield {**own, "length": len(response[RESPONSE_IDS]), **response}


def read_questions(file: Location) -> Iterator[SampledQuestion]:
    """The questions of a samples file, in its order, a few in memory at a time."""
    for row_id, group in itertools.groupby(file.rows(), key=lambda row: row[ID]):
        rows = list(group)
        (greedy,) = (from_row(row) for row in rows if row["greedy"])
        yield SampledQuestion(row_id, rows[0]["gold"], greedy, [from_row(row) for row in rows if not row["greedy"]])
