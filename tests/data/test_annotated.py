"""Data sets read and written in batches: nothing lost, whole or absent, never onto themselves; and random samples."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_location import bucket
from train_helpers import make_rows, write_rows

from openrlhf_cft.cli.flags import run_command
from openrlhf_cft.cli.masks import main
from openrlhf_cft.data import parquet
from openrlhf_cft.data.annotated import open_data, output, unfinished, with_record, write
from openrlhf_cft.data.location import Location, location
from openrlhf_cft.data.records import MASK, METADATA_KEY, read_metadata, read_rows
from openrlhf_cft.masks.sample import SampleSettings, sample

__all__ = ["bucket"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three files of 40 rows, with columns of types that Parquet alone does not have, and foreign metadata."""
    path = write_rows(tmp_path / "in", make_rows(120), {"model": "m"})
    whole = pq.read_table(path / "part-0.parquet")
    kinds = pa.array(["x", "y"] * 60).dictionary_encode()
    when = pa.array(range(120), pa.timestamp("us", tz="Europe/Berlin"))
    nested = pa.array([[{"a": i, "b": [str(i), None]}] for i in range(120)])
    field = pa.field("kind", kinds.type, metadata={b"colour": b"red"})
    whole = whole.append_column(field, kinds).append_column("when", when).append_column("nested", nested)
    whole = whole.append_column("half", pa.array([0.5] * 120, pa.float16()))
    whole = whole.replace_schema_metadata({**(whole.schema.metadata or {}), b"other": b"kept"})
    for number in range(3):
        pq.write_table(whole.slice(40 * number, 40), path / f"part-{number}.parquet", row_group_size=7)
    return path


def read(path: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(path.glob("*.parquet"))])


def test_what_is_written_is_what_was_read(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_PER_FILE", 50)
    data = open_data(source)
    out = output(tmp_path / "out", [data])
    assert write(out, with_record(data.schema, "note", [1]), data.batches()) == 120
    before, after = read(source), read(tmp_path / "out")
    assert after.equals(before) and after.schema.equals(before.schema)
    assert len(list((tmp_path / "out").glob("*"))) == 3
    for old, new in zip(before.schema, after.schema, strict=True):
        kept = {key: value for key, value in (old.metadata or {}).items() if not key.startswith(b"PARQUET:")}
        assert kept.items() <= (new.metadata or {}).items()
    assert after.schema.metadata[b"other"] == b"kept"
    assert json.loads(after.schema.metadata[METADATA_KEY]) == {"model": "m", "note": [1]}
    assert len(datasets.load_dataset(str(tmp_path / "out"), cache_dir=tmp_path / "cache")["train"]) == 120


def test_it_is_whole_or_absent(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_PER_FILE", 30)
    data, out = open_data(source), tmp_path / "out"
    folder = Path(unfinished(location(out)).path)

    def failing() -> Iterator[pa.RecordBatch]:
        yield from data.batches()
        assert (folder / "part-00001.parquet").exists() and not out.exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(output(out, [data]), data.schema, failing())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    folder.mkdir()
    (folder / "part-00009.parquet").write_text("of a process that was killed")
    write(output(out, [data]), data.schema, data.batches())
    assert len(list(read_rows(out))) == 120 and not folder.exists()


def test_on_an_object_store_too(source: Path, bucket: str, tmp_path: Path) -> None:
    data, target = open_data(source), bucket.format(tmp_path.name)
    location(target).make_dir()
    (location(target) / ".part-00007.parquet").write_text("of a process that was killed")

    def failing() -> Iterator[pa.RecordBatch]:
        yield next(data.batches())
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk"):
        write(output(target, [data]), data.schema, failing())
    assert location(target).files("") == []
    write(output(target, [data]), data.schema, data.batches())
    assert [file.name for file in location(target).files("")] == ["part-00000.parquet"]
    assert pa.Table.from_batches(open_data(target).batches()).equals(read(source))
    with pytest.raises(ValueError, match="is there already"):
        output(target, [data])
    with pytest.raises(ValueError, match="overlap: give another"):
        output(target, [open_data(target)])


def test_a_data_set_without_a_row_stays_one(source: Path, tmp_path: Path) -> None:
    data = open_data(source)
    (tmp_path / "out").mkdir()  # empty, and so no obstacle
    assert write(output(tmp_path / "out", [data]), data.schema, []) == 0
    assert open_data(tmp_path / "out").schema.equals(data.schema) and list(read_rows(tmp_path / "out")) == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("in", "overlap: give another"),
        ("in/part-0", "overlap: give another"),
        ("", "overlap: give another"),
        ("link", "overlap: give another"),
        ("full", "is there already"),
        ("new.parquet", "is named like a file"),
    ],
)
def test_outputs_that_are_refused(source: Path, tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=f"--out: .*{told}"):
        output(tmp_path / name, [open_data(source)])


@pytest.mark.parametrize("verb", [["sample", "--rows", "9"], ["export", "--format", "jsonl"]])
def test_nothing_beside_the_output_is_touched(source: Path, tmp_path: Path, verb: list[str]) -> None:
    """A folder called NAME.partial may be an input, or anything of the user's."""
    partial = source.rename(tmp_path / "out.partial")
    before = read(partial)
    assert main([verb[0], str(partial), *verb[1:], "--out", str(tmp_path / "out")]) == 0
    assert read(partial).equals(before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.partial"]


@pytest.mark.parametrize(
    "words",
    [
        ["stats", "{}", "--mask", "n"],
        ["sample", "{}", "--rows", "1", "--mask", "n", "--out", "{}.out"],
        ["compare", "{}", "{}", "--mask_b", "n"],
        ["derive", "{}", "--column", "r", "--how", "random", "--reference", "n", "--out", "{}.out"],
        ["export", "{}", "--format", "trl", "--mask", "n", "--out", "{}.out"],
    ],
)
def test_a_column_without_weights_is_one_sentence(tmp_path: Path, words: list[str]) -> None:
    path = write_rows(tmp_path / "in", make_rows(3))
    table = pq.read_table(path / "part-0.parquet").append_column("n", pa.array([1, 2, 3]))
    pq.write_table(table, path / "part-0.parquet")
    with pytest.raises(ValueError, match=r"column 'n' of '.*in' holds int64, and no list of numbers"):
        main([word.format(path) for word in words])


def test_inputs_that_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no Parquet file at"):
        open_data(tmp_path)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "plain.parquet")
    with pytest.raises(ValueError, match="has no column 'response_token_ids'; its columns are id"):
        open_data(tmp_path / "plain.parquet")
    (source / "part-1.parquet").write_bytes((source / "part-1.parquet").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"part-1\.parquet' is no whole Parquet file"):
        open_data(source)
    pq.write_table(pa.table({"id": ["a"]}), source / "part-1.parquet")
    with pytest.raises(ValueError, match=r"part-1\.parquet' has other columns than 'part-0\.parquet'"):
        open_data(source)


def share(row: dict[str, Any]) -> float:
    return sum(weight > 0 for weight in row[MASK]) / len(row[MASK])


def test_a_sample_is_some_of_the_rows_in_their_order(source: Path, tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    flags = ["--min_share", "0.2", "--max_share", "0.6"]
    assert main(["sample", str(source), "--rows", "10", *flags, "--out", str(small)]) == 0
    assert main(["sample", str(source), "--rows", "30", *flags, "--out", str(large)]) == 0
    rows, ten, thirty = list(read_rows(source)), list(read_rows(small)), list(read_rows(large))
    fitting = [row for row in rows if 0.2 <= share(row) <= 0.6]
    assert [row for row in fitting if row in thirty] == thirty and len(thirty) == 30
    assert [row for row in thirty if row in ten] == ten and len(ten) == 10, "a larger one holds the smaller"
    recorded = (read_metadata(small) or {})["sampled"]
    assert (recorded["rows"], recorded["qualified"]) == (10, len(fitting))


def test_a_sample_does_not_depend_on_the_order_and_every_row_has_its_chance(tmp_path: Path) -> None:
    rows = make_rows(60)
    data = open_data(write_rows(tmp_path / "a", rows))
    turned = open_data(write_rows(tmp_path / "b", rows[::-1]))
    taken: dict[str, int] = {row["id"]: 0 for row in rows}
    for seed in range(40):
        settings = SampleSettings(15, seed)
        sample(data, settings, location(tmp_path / f"a{seed}"))
        sample(turned, settings, location(tmp_path / f"b{seed}"))
        ids = [row["id"] for row in read_rows(tmp_path / f"a{seed}")]
        assert ids == [row["id"] for row in read_rows(tmp_path / f"b{seed}")][::-1]
        for row_id in ids:
            taken[row_id] += 1
    assert min(taken.values()) > 0 and max(taken.values()) < 25, "10 times each, give or take"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--rows", "500"], "--rows: 500 is more than the 120 rows that qualify"),
        (["--rows", "0"], "--rows: 0 must be at least 1"),
        (
            ["--rows", "1", "--min_share", "0.9", "--max_share", "0.1"],
            "--min_share 0.9 --max_share 0.1: need 0 <= min",
        ),
        (["--rows", "1", "--mask", "nope"], "has no column 'nope'"),
    ],
)
def test_a_bad_sample_is_one_sentence(source: Path, tmp_path: Path, flags: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        main(["sample", str(source), *flags, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_as_a_command(source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "openrlhf_cft.cli.masks", "sample", str(source), "--rows", "3"]
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"masks sample: 3 of 120 rows are in {tmp_path / 'out'}\n")
    done = subprocess.run([*command, "--out", str(source)], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--out" in done.stderr


@pytest.mark.parametrize(("error", "code"), [(OSError("the disk is full"), 2), (KeyboardInterrupt(), 130)])
def test_what_fails_says_that_nothing_was_written(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing() -> int:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command("masks", failing, resumes=False)
    assert ended.value.code == code and "nothing was written" in capsys.readouterr().err


@pytest.mark.parametrize("objects", [False, True])
def test_what_fails_midway_leaves_no_file(tmp_path: Path, objects: bool) -> None:
    """Where files are objects one is written under its own name, and a writer that is closed gives it a footer."""
    from fsspec.implementations.local import LocalFileSystem
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    place = location(tmp_path)
    if objects:
        place = Location(PyFileSystem(FSSpecHandler(LocalFileSystem())), str(tmp_path))
    assert place.is_local is not objects
    schema = pa.schema([("id", pa.string())])
    with pytest.raises(KeyboardInterrupt), parquet.whole_file(place / "a.parquet", schema) as writer:
        writer.write_table(pa.table({"id": ["a"]}))
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), parquet.PartFiles(schema, lambda number: place / f"{number}") as parts:
        parts.write(pa.table({"id": ["a"]}))
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
