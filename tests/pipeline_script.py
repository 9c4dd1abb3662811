"""The real Ray Data pipeline with a scripted worker: `python pipeline_script.py DIRECTORY ROWS [FAILING_ID ...]`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openrlhf_cft.annotate.generate import GeneratorError
from openrlhf_cft.annotate.pipeline import Finished, PoolSettings
from openrlhf_cft.annotate.workdir import Workdir, progress


class Factory:
    """Makes the worker in the actor's process."""

    def __init__(self, directory: Path, failing: set[str]) -> None:
        self.directory, self.failing = directory, failing

    def __call__(self) -> Factory:
        self.dead = False
        return self

    def close(self) -> None:
        """Note that the worker was told to end."""
        (self.directory / "closed").touch()

    async def work(self, row: dict[str, Any]) -> Finished:
        """Note that the row was begun, wait a little, finish."""
        with open(self.directory / "begun.txt", "a") as log:
            log.write(row["id"] + "\n")
        if row["id"] in self.failing:
            self.dead = not (self.directory / "died").exists()
            (self.directory / "died").touch()
            raise GeneratorError("planted")
        await asyncio.sleep(0.5)
        return Finished("done", {"square": row["number"] ** 2, "pid": os.getpid()}, {"rows": 1})


def main() -> None:
    directory, rows, failing = Path(sys.argv[1]), int(sys.argv[2]), set(sys.argv[3:])
    work = Workdir(directory, "script")
    if not work.prompts.exists():
        pq.write_table(pa.table({"id": [f"r{i}" for i in range(rows)], "number": list(range(rows))}), work.prompts)
    pool = PoolSettings(rows_in_flight=32)
    work.run(rows, Factory(directory, failing), pool, lambda c, s, n: progress(c, s, n, "scripted"))


if __name__ == "__main__":
    main()
