"""A real pipeline run with a scripted worker, started by `test_pipeline.py` and `test_faults.py`.

    python pipeline_script.py DIRECTORY ROWS [FAULT=ID,ID... ...]

Faults, of the rows that follow: `fails` (an engine that does not answer, after it died once), `kills` (the process
ends each time), `dies` (the engine does, and says why), `wrong` (an error that nobody thought of), `ends` (the job
cannot go on), `waits` (the row takes an hour); of all rows, with no ids: `starts` (the engine does not start),
`all_die`, `slow` (they take an hour), `together` (each waits until all have begun).
`at=URI` puts the work directory there, `engines=N` starts so many.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openrlhf_cft.cli.flags import run_command
from openrlhf_cft.data.location import location
from openrlhf_cft.errors import EngineError, JobError
from openrlhf_cft.jobs.engine_actor import Finished
from openrlhf_cft.jobs.pipeline import PoolSettings
from openrlhf_cft.jobs.progress import line
from openrlhf_cft.jobs.run_job import run_job
from openrlhf_cft.jobs.workdir import Workdir


class Factory:
    """Makes the worker in the actor's process."""

    def __init__(self, directory: Path, faults: dict[str, set[str]], rows: int) -> None:
        self.directory, self.faults, self.rows = directory, faults, rows

    def __call__(self) -> Factory:
        with open(self.directory / "started.txt", "a") as log:
            log.write(f"{os.getpid()}\n")
        if "starts" in self.faults:
            raise EngineError("planted: no such device")
        self.dead = False
        return self

    def close(self) -> None:
        """Note that the worker was told to end."""
        (self.directory / "closed").touch()

    def has(self, fault: str, row_id: str) -> bool:
        return row_id in self.faults.get(fault, set())

    async def work(self, row: dict[str, Any]) -> Finished:
        """Note that the row was begun, wait a little, finish."""
        row_id = row["id"]
        if not (self.directory / "begun.txt").exists():
            (self.directory / "worker.txt").write_text(str(os.getpid()))
        with open(self.directory / "begun.txt", "a") as log:
            log.write(row_id + "\n")
        while "together" in self.faults and len((self.directory / "begun.txt").read_text().split()) < self.rows:
            await asyncio.sleep(0.1)
        if self.has("fails", row_id):
            self.dead = not (self.directory / "died").exists()
            (self.directory / "died").touch()
            raise EngineError("planted")
        await asyncio.sleep(0.1)
        if self.has("kills", row_id):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.has("dies", row_id) or "all_die" in self.faults:
            self.dead = True
            raise EngineError(f"planted death of {row_id}")
        if self.has("wrong", row_id):
            raise KeyError("planted")
        if self.has("ends", row_id):
            raise JobError("planted: no such weights")
        await asyncio.sleep(3600 if "slow" in self.faults or self.has("waits", row_id) else 0.4)
        if self.dead:  # as on an engine: when it dies, it does so for all rows
            raise EngineError("planted death of another row")
        return Finished("done", {"square": row["_number"] ** 2, "pid": os.getpid()}, {"rows": 1})


def main() -> int:
    directory, rows = Path(sys.argv[1]), int(sys.argv[2])
    faults = {name: set(ids.split(",")) for name, _, ids in (fault.partition("=") for fault in sys.argv[3:])}
    (root,) = faults.pop("at", {str(directory)})
    (engines,) = faults.pop("engines", {"1"})
    work = Workdir(location(root), "script")
    if not work.prompts.exists():
        table = pa.table({"id": [f"r{i}" for i in range(rows)], "_number": list(range(rows))})
        pq.write_table(table, work.prompts.path, filesystem=work.prompts.filesystem)
    with work.claimed():
        pool = PoolSettings(int(engines), rows_in_flight=32)
        run_job(work, rows, Factory(directory, faults, rows), pool, report)
    return 0


def report(counts: dict[str, float], seconds: float, total: int) -> str:
    return line(counts, seconds, total, "scripted")


if __name__ == "__main__":
    run_command("script", main)
