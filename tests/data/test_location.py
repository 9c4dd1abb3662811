"""Files on a local path, by URI and on S3 (a real server, of `moto`, on this machine); then a whole job on S3."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_pipeline import ROWS, finish, kill_driver, start

from openrlhf_cft.data.location import Location, location, lock, without_credentials
from openrlhf_cft.data.records import read_rows
from openrlhf_cft.jobs.finished_rows import PARQUET, PENDING
from openrlhf_cft.jobs.workdir import Workdir


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a directory on S3, of which `{}` is the name."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = "scheme=http&region=us-east-1&allow_bucket_creation=true"
    uri = f"s3://name:secret@bucket/{{}}?endpoint_override={host}%3A{port}&{options}"
    location(uri.format("first")).make_dir()  # and with it the bucket, for tests that run alone
    yield uri
    server.stop()


@pytest.fixture(params=["path", "file", "s3"])
def directory(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> Location:
    found = {"path": tmp_path / "a b", "file": f"file://{tmp_path}/by-uri", "s3": bucket.format(tmp_path.name)}
    return location(found[request.param])


def test_files(directory: Location) -> None:
    assert directory.files(".json") == [] and not directory.is_dir() and not (directory / "b.json").exists()
    directory.make_dir()
    for name in ("b.json", "a.json", "c.txt"):
        (directory / name).write_text(f"ä {name}")
    (directory / "b.json").write_text("again")
    assert directory.is_dir() and (directory / "b.json").exists()
    assert [file.name for file in directory.files(".json")] == ["a.json", "b.json"]
    there = pickle.loads(pickle.dumps(directory))
    assert [(there / name).read_text() for name in ("a.json", "b.json")] == ["ä a.json", "again"]
    (directory / "a.json").move(directory / "b.json")
    assert [file.name for file in directory.files(".json")] == ["b.json"]
    (directory / "b.json").delete()
    assert [file.name for file in directory.files("")] == ["c.txt"]
    directory.clear()
    assert directory.files("") == []


def test_rows(directory: Location) -> None:
    directory.make_dir()
    table = pa.table({"id": [str(i) for i in range(600)], "n": range(600)})
    pq.write_table(table, (directory / "x.parquet").path, filesystem=directory.filesystem)
    assert list((directory / "x.parquet").rows(["n"])) == [{"n": i} for i in range(600)]


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    file = location(tmp_path) / "x.json"
    file.write_text("before")
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
    while file.read_text() == "before":
        assert process.poll() is None
        time.sleep(0.05)
    for _ in range(200):
        assert len(set(file.read_text())) == 1
    process.kill()
    process.wait()
    assert len(file.read_text()) == 1_000_000


WRITER = """
import itertools, sys
from openrlhf_cft.data.location import location
for letter in itertools.cycle("ab"):
    (location(sys.argv[1]) / "x.json").write_text(1_000_000 * letter)
"""


def test_one_at_a_time(tmp_path: Path) -> None:
    held = lock(location(tmp_path))
    with pytest.raises(ValueError, match=f"process {os.getpid()} on .* is working on '{tmp_path}': wait for it"):
        lock(location(tmp_path))
    assert held is not None
    held.close()
    again = lock(location(tmp_path))
    assert again is not None
    again.close()


def test_what_is_no_filesystem() -> None:
    with pytest.raises(ValueError, match="'nope://bucket/x' is on no filesystem that pyarrow can reach: "):
        location("nope://name:secret@bucket/x?key=secret")


def test_credentials_are_never_printed(bucket: str) -> None:
    assert without_credentials(bucket) == "s3://bucket/{}"
    assert str(location(bucket.format("x"))) == "s3://bucket/x"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_on_s3_is_killed_and_goes_on(bucket: str, tmp_path: Path) -> None:
    uri = bucket.format("job")
    work = Workdir(location(uri), "test")
    first = start(tmp_path, f"at={uri}", f"waits=r{ROWS - 1}")
    # A block is done once its checkpoint has lost the name that it is written under.
    while all(file.name.endswith(PENDING) for file in work.outcomes.checkpoint.files(PARQUET)):
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.2)
    kill_driver(first)
    before = len((tmp_path / "begun.txt").read_text().split())
    output = finish(start(tmp_path, f"at={uri}"))
    assert "done before" in output and f"{ROWS} rows, 0 done before" not in output and "secret" not in output
    assert len((tmp_path / "begun.txt").read_text().split()) - before < ROWS
    assert Counter(row["id"] for row in work.outcomes.rows(["id"])) == Counter({f"r{i}": 1 for i in range(ROWS)})
    assert Counter(row["id"] for row in read_rows(f"{uri.replace('/job', '/job/outcomes')}")).total() == ROWS
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".parquet"], "written beside the bucket"


def test_a_mount_without_locks_is_used_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", unsupported)
    assert lock(location(tmp_path)) is None
    assert "cannot be locked" in caplog.text and "run only one command on it" in caplog.text
