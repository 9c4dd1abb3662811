"""Data files and checkpoints made whole after a crash: what Ray Data, a full disk or a cut file can leave behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openrlhf_cft.data.location import Location, location
from openrlhf_cft.jobs.finished_rows import Outcomes


def outcomes(directory: Path) -> Outcomes:
    (directory / "data").mkdir()
    (directory / "checkpoint").mkdir()
    return Outcomes(location(directory / "data"), location(directory / "checkpoint"))


def table(numbers: list[int]) -> pa.Table:
    return pa.table({"id": [f"r{n}" for n in numbers], "_number": numbers, "payload": [f"p{n}" for n in numbers]})


def block(found: Outcomes, base: str, numbers: list[int], *, data: bool = True, checkpoint: str = ".parquet") -> None:
    """A block as Ray Data writes it, or a part of that."""
    if data:
        pq.write_table(table(numbers), f"{found.data.path}/{base}-0.parquet")
    if checkpoint:
        pq.write_table(table(numbers).select(["id"]), f"{found.checkpoint.path}/{base}{checkpoint}")


def halve(path: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


def checkpointed(found: Outcomes) -> dict[str, list[str]]:
    """The ids of each checkpoint file; there must be no other file."""
    return {name: pq.read_table(f"{found.checkpoint.path}/{name}")["id"].to_pylist() for name in names(found)}


def names(found: Outcomes) -> list[str]:
    return sorted(os.listdir(found.checkpoint.path))


def test_a_whole_directory_stays_as_it_is(tmp_path: Path) -> None:
    found = outcomes(tmp_path)
    block(found, "a", [0, 1])
    block(found, "b", [2])
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert found.repair() == (3, [])
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}


def test_nothing_done_yet(tmp_path: Path) -> None:
    assert Outcomes(location(tmp_path / "no"), location(tmp_path / "such")).repair() == (0, [])


def test_a_cut_data_file_is_removed_with_its_checkpoint(tmp_path: Path) -> None:
    found = outcomes(tmp_path)
    block(found, "a", [0, 1])
    block(found, "b", [2, 3])
    halve(f"{found.data.path}/b-0.parquet")
    assert found.repair() == (2, ["b-0.parquet"])
    assert checkpointed(found) == {"a.parquet": ["r0", "r1"]}
    assert os.listdir(found.data.path) == ["a-0.parquet"]


@pytest.mark.parametrize("left", ["empty", "half", "other", "pending", "none"])
def test_the_checkpoint_of_whole_data_is_written_anew(tmp_path: Path, left: str) -> None:
    found = outcomes(tmp_path)
    block(found, "a", [0, 1], checkpoint={"pending": ".pending.parquet", "none": ""}.get(left, ".parquet"))
    path = Path(found.checkpoint.path, "a.parquet")
    if left == "empty":
        path.write_bytes(b"")
    elif left == "half":
        halve(str(path))
    elif left == "other":  # of fewer rows
        pq.write_table(table([0]).select(["id"]), path)
    assert found.repair() == (2, [])
    assert checkpointed(found) == {"a.parquet": ["r0", "r1"]}


@pytest.mark.parametrize("ending", [".parquet", ".pending.parquet"])
def test_a_checkpoint_without_its_data_is_removed(tmp_path: Path, ending: str) -> None:
    found = outcomes(tmp_path)
    block(found, "a", [0, 1], data=False, checkpoint=ending)
    assert found.repair() == (0, [])
    assert names(found) == []


def test_a_filesystem_that_fails_removes_nothing(tmp_path: Path) -> None:
    """Unlike a cut file, which says nothing, it may answer tomorrow."""
    found = outcomes(tmp_path)
    block(found, "a", [0, 1])
    os.remove(f"{found.data.path}/a-0.parquet")
    Path(f"{found.data.path}/a-0.parquet").symlink_to("a-0.parquet")  # reading it is an error of the system

    class Listing(Outcomes):
        pass

    data = Listed(found.data.filesystem, found.data.path)
    with pytest.raises(OSError):
        Listing(data, found.checkpoint).repair()
    assert names(found) == ["a.parquet"]


class Listed(Location):
    """A directory that lists what it cannot read, as object stores do."""

    def files(self, ending: str) -> list[Location]:
        return [Location(self.filesystem, f"{self.path}/a-0.parquet")]


def in_order(found: Outcomes, rows: int, directory: Path) -> list[Any]:
    pq.write_table(table(list(range(rows))), directory / "prompts.parquet")
    merged: list[Any] = []
    for batch in found.in_order(location(directory / "prompts.parquet")):
        numbers = batch.source["_number"].to_pylist()
        merged += [(number, batch.done.get(at, {}).get("payload")) for at, number in enumerate(numbers)]
    return merged


def test_rows_come_in_the_order_of_the_source_and_once(tmp_path: Path) -> None:
    found = outcomes(tmp_path)
    rows = 1_000
    spread = list(range(0, rows, 3))
    block(found, "spread", spread[::-1])
    block(found, "dense", [n for n in range(rows // 2) if n % 3 == 1])
    block(found, "again", spread[:7])  # a second time, from a driver that was believed dead
    expected = {*spread, *(n for n in range(rows // 2) if n % 3 == 1)}
    assert in_order(found, rows, tmp_path) == [(n, f"p{n}" if n in expected else None) for n in range(rows)]
