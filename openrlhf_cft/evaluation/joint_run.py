"""One run of the pipeline for all data sets of a checkpoint, whose engines then start once.

`.evaluate/runs/CHECKPOINT/` is a work directory with every row that is not done, of whatever data set, each under the
id `KEY/NUMBER/ID`: the data set's key, the row's number in it, its own id. What is finished there goes to the data
sets' own work directories: when a run has ended, and what a kill has left, when the next one begins.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from openrlhf_cft.data.location import Location
from openrlhf_cft.data.parquet import whole_file
from openrlhf_cft.data.provenance import write_json
from openrlhf_cft.data.records import ID, PROMPT, PROMPT_IDS
from openrlhf_cft.data.source import GOLD, NUMBER
from openrlhf_cft.evaluation.sources import DataSet
from openrlhf_cft.jobs.engine_actor import RowWorker
from openrlhf_cft.jobs.finished_rows import PARQUET
from openrlhf_cft.jobs.pipeline import PoolSettings
from openrlhf_cft.jobs.run_job import finish_rows, repaired
from openrlhf_cft.jobs.workdir import Workdir

if TYPE_CHECKING:
    import pyarrow as pa

RUNS = "runs"  # no data set's key, which ends with a hash
COLUMNS = (ID, NUMBER, GOLD, PROMPT, PROMPT_IDS)


@dataclass(frozen=True)
class Evaluation:
    """One checkpoint on one data set."""

    checkpoint: str
    data: DataSet
    work: Workdir
    rows: int

    @property
    def name(self) -> str:
        """As files are called."""
        return f"{self.data.name}--{self.checkpoint}"


class JointId(NamedTuple):
    """A row of a run: of which data set it is, and which of its rows."""

    key: str
    number: int
    id: str

    @classmethod
    def read(cls, text: str) -> JointId:
        """The inverse of `str`."""
        key, number, row_id = text.split("/", 2)
        return cls(key, int(number), row_id)

    def __str__(self) -> str:
        return f"{self.key}/{self.number}/{self.id}"


class JointRun:
    """The run of one checkpoint.

    Args:
        state: the directory of all state.
        checkpoint: its name.
        evaluations: of this checkpoint, their work directories prepared.
    """

    def __init__(self, state: Location, checkpoint: str, evaluations: Sequence[Evaluation]) -> None:
        self.work = Workdir(state / RUNS / checkpoint, f"evaluate {checkpoint}")
        self.checkpoint = checkpoint
        self.evaluations = evaluations
        self._state = state

    def finish(
        self,
        factory: Callable[[], RowWorker],
        pool: PoolSettings,
        report: Callable[[dict[str, float], float, int], str],
        about: Callable[[Evaluation], str],
    ) -> None:
        """Do what is not done yet. The directory has to be claimed.

        Args:
            factory: makes the worker, for rows whose id is a `JointId`.
            pool: engines and rows in flight.
            report: counters, seconds and rows of this run to a progress line.
            about: of a data set with rows to do, what is printed before an engine starts.

        Raises:
            JobError: the job cannot go on; what is finished stays.
        """
        self._hand_over()
        left = {one.data.key: self._left(one) for one in self.evaluations}
        rows = sum(map(len, left.values()))
        if not rows:
            return
        self.work.root.make_dir()
        write_json(self.work.config, {key: self._config(key) for key in left})
        self._write_prompts(left)
        total = sum(one.rows for one in self.evaluations)
        lines = "\n".join(about(one) for one in self.evaluations if left[one.data.key])
        finish_rows(self.work, total, rows, factory, pool, report, lines, self._shown)
        self._hand_over()

    def _shown(self, text: str) -> str:
        """A `JointId` as the user knows the row: with its data set, if there are several."""
        joint = JointId.read(text)
        names = {one.data.key: one.data.name for one in self.evaluations}
        return joint.id if len(names) == 1 else f"{names[joint.key]}: {joint.id}"

    def _left(self, one: Evaluation) -> set[int]:
        """The numbers of a data set's rows that are not done."""
        repaired(one.work)
        return set(range(one.rows)) - {row[NUMBER] for row in one.work.outcomes.rows([NUMBER])}

    def _write_prompts(self, left: dict[str, set[int]]) -> None:
        """The rows that are not done, of all data sets."""
        import pyarrow as pa

        schema = self.evaluations[0].work.prompts.schema()
        schema = pa.schema([schema.field(name) for name in COLUMNS])
        number = 0
        with whole_file(self.work.prompts, schema) as writer:
            for one in self.evaluations:
                for batch in one.work.prompts.batches(COLUMNS):
                    rows = [row for row in batch.to_pylist() if row[NUMBER] in left[one.data.key]]
                    for row in rows:
                        row[ID] = str(JointId(one.data.key, row[NUMBER], row[ID]))
                        row[NUMBER], number = number, number + 1
                    if rows:
                        writer.write_table(pa.Table.from_pylist(rows, schema=schema))

    def _hand_over(self) -> None:
        """Give the data sets their finished rows; doing it again, after a kill in the middle, changes nothing."""
        if not self.work.config.exists():
            self._clear()  # of which data sets such rows would be is not known
            return
        repaired(self.work)
        asked: dict[str, Any] = json.loads(self.work.config.read_text())
        files = self.work.outcomes.data.files(PARQUET)
        counts: Counter[str] = Counter()
        for file in files:
            for key, table in _by_key(file):
                counts[key] += table.num_rows
                # Otherwise its directory was deleted, or is of another run by now.
                if key in asked and asked[key] == self._config(key):
                    self._write(key, file.name, table)
        self._share_seconds(counts)
        self._clear()
        self.work.config.delete()  # last: without it, what a kill left would never be cleared

    def _clear(self) -> None:
        for place in (self.work.outcomes.data, self.work.outcomes.checkpoint):
            place.clear()

    def _write(self, key: str, name: str, table: pa.Table) -> None:
        data = self._own(key).outcomes.data
        data.make_dir()
        with whole_file(data / name, table.schema) as writer:
            writer.write_table(table)

    def _share_seconds(self, counts: Counter[str]) -> None:
        """The run's time to the data sets, by their rows: no row of a run has a time of its own."""
        seconds = self.work.seconds
        write_json(self.work.root / "seconds.json", 0.0)  # first: a kill may lose some, and counts none twice
        for key, rows in counts.items():
            own = self._own(key)
            if own.config.exists():
                write_json(own.root / "seconds.json", own.seconds + seconds * rows / counts.total())

    def _own(self, key: str) -> Workdir:
        """The work directory of a data set, which this command may not have been asked for."""
        return Workdir(self._state / key / self.checkpoint, key)

    def _config(self, key: str) -> dict[str, Any] | None:
        path = self._own(key).config
        return dict(json.loads(path.read_text())) if path.exists() else None


def _by_key(file: Location) -> Iterator[tuple[str, pa.Table]]:
    """The rows of a file of finished ones, for each data set those of its own, as its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file.path, filesystem=file.filesystem, partitioning=None)
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        joint = JointId.read(row[ID])
        rows.setdefault(joint.key, []).append({**row, ID: joint.id, NUMBER: joint.number})
    for key, own in rows.items():
        yield key, pa.Table.from_pylist(own, schema=table.schema)
