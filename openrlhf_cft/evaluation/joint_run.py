"""One run of the pipeline for all data sets of the checkpoints that share an engine, which then starts once.

`.evaluate/joint/FIRST CHECKPOINT/` is a work directory with every row that is not done. A row has the id
`CHECKPOINT/KEY/NUMBER/ID`: the data set's key, the row's number in it, its own id. When the run has ended, its
finished rows go to the evaluations' own work directories. What a kill has left goes there when the next command
begins, whichever checkpoints that one is about.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from openrlhf_cft.data.location import Location
from openrlhf_cft.data.parquet import whole_file
from openrlhf_cft.data.provenance import write_json
from openrlhf_cft.data.records import ID, PROMPT, PROMPT_IDS
from openrlhf_cft.data.source import GOLD, NUMBER
from openrlhf_cft.errors import InputError
from openrlhf_cft.evaluation.sources import DataSet
from openrlhf_cft.jobs.engine_actor import COUNTS, PAYLOAD, RowWorker
from openrlhf_cft.jobs.finished_rows import PARQUET
from openrlhf_cft.jobs.pipeline import PoolSettings
from openrlhf_cft.jobs.run_job import finish_rows, repaired
from openrlhf_cft.jobs.workdir import Workdir

if TYPE_CHECKING:
    import pyarrow as pa

JOINT = "joint"  # no data set's key, which ends with a hash
COLUMNS = (ID, NUMBER, GOLD, PROMPT, PROMPT_IDS)

Place = tuple[str, str]  # a checkpoint's name and a data set's key


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

    @property
    def place(self) -> Place:
        """Its rows are told from others by this."""
        return self.checkpoint, self.data.key


class JointId(NamedTuple):
    """A row of a run: of which checkpoint and data set it is, and which of its rows."""

    checkpoint: str
    key: str
    number: int
    id: str

    @classmethod
    def read(cls, text: str) -> JointId:
        """The inverse of `str`."""
        checkpoint, key, number, row_id = text.split("/", 3)
        return cls(checkpoint, key, int(number), row_id)

    def __str__(self) -> str:
        return f"{self.checkpoint}/{self.key}/{self.number}/{self.id}"


class JointRun:
    """The run of some checkpoints.

    Args:
        state: the directory of all state.
        name: of the run's own directory.
        evaluations: of these checkpoints, one checkpoint after the other, their work directories prepared.
    """

    def __init__(self, state: Location, name: str, evaluations: Sequence[Evaluation] = ()) -> None:
        names = ", ".join(dict.fromkeys(one.checkpoint for one in evaluations)) or name
        self.work = Workdir(state / JOINT / name, f"evaluate {names}")
        self.evaluations = evaluations
        self._state = state

    def finish(
        self,
        factory: Callable[[Collection[str]], Callable[[], RowWorker]],
        pool: PoolSettings,
        report: Callable[[dict[str, float], float, int], str],
        about: Callable[[Evaluation], str],
    ) -> None:
        """Do what is not done yet. The directory has to be claimed, and `hand_over_all` has been called.

        Args:
            factory: of the checkpoints with rows to do: makes the worker, for rows whose id is a `JointId`.
            pool: engines and rows in flight.
            report: counters, seconds and rows of this run to a progress line.
            about: of a data set with rows to do, what is printed before an engine starts.

        Raises:
            JobError: the job cannot go on; what is finished stays.
        """
        left = {one.place: self._left(one) for one in self.evaluations}
        rows = sum(map(len, left.values()))
        if not rows:
            return
        self.work.root.make_dir()
        write_json(self.work.config, [[*place, self._config(place)] for place in left])
        self._write_prompts(left)
        total = sum(one.rows for one in self.evaluations)
        # Checkpoints that share an engine get the same prompts, so one of them is enough.
        first = {one.data.key: one for one in reversed(self.evaluations) if left[one.place]}
        lines = "\n".join(about(one) for one in reversed(first.values()))
        worker = factory(list(dict.fromkeys(checkpoint for (checkpoint, _), numbers in left.items() if numbers)))
        finish_rows(self.work, total, rows, worker, pool, report, lines, self._shown)
        self.hand_over()

    def _shown(self, text: str) -> str:
        """A `JointId` as the user knows the row: with its checkpoint and its data set, if there are several."""
        row = JointId.read(text)
        checkpoints = {one.checkpoint for one in self.evaluations}
        names = {one.data.key: one.data.name for one in self.evaluations}
        several = [row.checkpoint] * (len(checkpoints) > 1) + [names[row.key]] * (len(names) > 1)
        return ": ".join([*several, row.id])

    def _left(self, one: Evaluation) -> set[int]:
        """The numbers of an evaluation's rows that are not done."""
        repaired(one.work)
        return set(range(one.rows)) - {row[NUMBER] for row in one.work.outcomes.rows([NUMBER])}

    def _write_prompts(self, left: dict[Place, set[int]]) -> None:
        """The rows that are not done, one checkpoint after the other."""
        import pyarrow as pa

        schema = self.evaluations[0].work.prompts.schema()
        schema = pa.schema([schema.field(name) for name in COLUMNS])
        number = 0
        with whole_file(self.work.prompts, schema) as writer:
            for one in self.evaluations:
                for batch in one.work.prompts.batches(COLUMNS):
                    rows = [row for row in batch.to_pylist() if row[NUMBER] in left[one.place]]
                    for row in rows:
                        row[ID] = str(JointId(*one.place, row[NUMBER], row[ID]))
                        row[NUMBER], number = number, number + 1
                    if rows:
                        writer.write_table(pa.Table.from_pylist(rows, schema=schema))

    def hand_over(self) -> None:
        """Give the evaluations their finished rows; doing it again, after a kill in the middle, changes nothing."""
        if not self.work.config.exists():
            self._clear()  # of which evaluations such rows would be is not known
            return
        repaired(self.work)
        asked = {(checkpoint, key): config for checkpoint, key, config in json.loads(self.work.config.read_text())}
        tokens: dict[Place, float] = defaultdict(float)
        for file in self.work.outcomes.data.files(PARQUET):
            for place, table in _by_place(file):
                tokens[place] += sum(map(_decoded, table[PAYLOAD].to_pylist()))
                # Otherwise its directory was deleted, or is of another run by now.
                if asked.get(place) is not None and asked[place] == self._config(place):
                    self._write(place, file.name, table)
        self._share_seconds(tokens)
        self._clear()
        self.work.config.delete()  # last: without it, what a kill left would never be cleared

    def _clear(self) -> None:
        for directory in (self.work.outcomes.data, self.work.outcomes.checkpoint):
            directory.clear()

    def _write(self, place: Place, name: str, table: pa.Table) -> None:
        data = self._own(place).outcomes.data
        data.make_dir()
        with whole_file(data / name, table.schema) as writer:
            writer.write_table(table)

    def _share_seconds(self, tokens: dict[Place, float]) -> None:
        """The run's time to the evaluations, by the tokens they decoded: no row of a run has a time of its own."""
        seconds = self.work.seconds
        write_json(self.work.root / "seconds.json", 0.0)  # first: a kill may lose some, and counts none twice
        for place, count in tokens.items():
            own = self._own(place)
            if own.config.exists():
                write_json(own.root / "seconds.json", own.seconds + seconds * count / sum(tokens.values()))

    def _own(self, place: Place) -> Workdir:
        """The work directory of an evaluation, which this command may not have been asked for."""
        checkpoint, key = place
        return Workdir(self._state / key / checkpoint, key)

    def _config(self, place: Place) -> dict[str, Any] | None:
        path = self._own(place).config
        return dict(json.loads(path.read_text())) if path.exists() else None


def hand_over_all(state: Location, runs: Sequence[JointRun]) -> None:
    """Hand over what a kill has left in these runs, and in those of other groups of checkpoints.

    Args:
        state: the directory of all state.
        runs: claimed by this command.
    """
    for run in runs:
        run.hand_over()
    own = {run.work.root.name for run in runs}
    for directory in (state / JOINT).directories():
        if directory.name in own:
            continue
        other = JointRun(state, directory.name)
        try:
            with other.work.claimed():
                other.hand_over()
        except InputError:  # another command works on it
            continue


def _decoded(payload: str) -> float:
    """The tokens that a finished row took, at least 1."""
    counts: dict[str, float] = json.loads(payload).get(COUNTS, {})
    return max(1.0, counts.get("decoded_tokens", 0.0))


def _by_place(file: Location) -> Iterator[tuple[Place, pa.Table]]:
    """The rows of a file of finished ones, for each evaluation those of its own, as its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file.path, filesystem=file.filesystem, partitioning=None)
    rows: dict[Place, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        joint = JointId.read(row[ID])
        place = joint.checkpoint, joint.key
        rows.setdefault(place, []).append({**row, ID: joint.id, NUMBER: joint.number})
    for place, own in rows.items():
        yield place, pa.Table.from_pylist(own, schema=table.schema)
