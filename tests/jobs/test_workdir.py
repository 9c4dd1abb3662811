"""The state of a job, and the data set from it: what is left to do, what an earlier run leaves, what is not stored."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_location import bucket
from train_helpers import make_model

from openrlhf_cft.annotation.row_worker import AnnotateWorkerFactory, settings_record
from openrlhf_cft.annotation.settings import AnnotateSettings
from openrlhf_cft.annotation.writer import write_dataset
from openrlhf_cft.data.location import location
from openrlhf_cft.data.source import SourceSettings
from openrlhf_cft.engine.vllm_engine import EngineSettings
from openrlhf_cft.errors import Failure, InputError, JobError
from openrlhf_cft.jobs.pipeline import PoolSettings
from openrlhf_cft.jobs.run_job import run_job
from openrlhf_cft.jobs.workdir import Workdir
from openrlhf_cft.verify.settings import VerifierSettings

__all__ = ["bucket"]
QUESTIONS = "".join(json.dumps({"question": f"what is {i}?", "answer": str(i)}) + "\n" for i in range(4))


def report(counts: dict[str, float], seconds: float, total: int) -> str:
    return ""


def prepared(tmp_path: Path, dataset: str) -> tuple[Workdir, dict[str, Any]]:
    model = make_model(tmp_path / "model")
    work = Workdir(location(tmp_path / "out" / ".annotate"), "test")
    source = SourceSettings(dataset, input_key="question", label_key="answer")
    return work, work.prepare(source, EngineSettings(str(model)), {})


def finish(work: Workdir, name: str, numbers: list[int]) -> None:
    """Rows as a worker leaves them: done, but not annotated."""
    work.outcomes.data.make_dir()
    payload = json.dumps({"counts": {"rows": 1}})
    columns = {"id": [str(n) for n in numbers], "_number": numbers}
    table = pa.table({**columns, "status": ["wrong"] * len(numbers), "payload": [payload] * len(numbers)})
    pq.write_table(table, f"{work.outcomes.data.path}/{name}-0.parquet")


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "questions.jsonl").write_text(QUESTIONS)
    return str(tmp_path / "questions.jsonl")


def test_the_first_prompt_is_shown_as_the_model_gets_it(tmp_path: Path, source: str) -> None:
    work, config = prepared(tmp_path, source)
    assert config["stop_token_ids"] == [1] and "add_bos" not in config["source"]
    first, second = work.first_prompt(EngineSettings(str(tmp_path / "model"))).splitlines()
    assert re.fullmatch(r"test: the first prompt, \d+ tokens: what is 0\?", first)
    assert second == "test: a response ends with </s>"


def test_records_have_names_as_they_were_given_and_a_moved_model_goes_on(tmp_path: Path, source: str) -> None:
    """A record is published with the data set, so it has no folder of this machine that the user did not name."""
    settings = {"model": "runs/base", "weights": "cafe", "verifier": "my.py", "verifier_sha256": "beef"}

    def again(**changes: str) -> dict[str, Any]:
        work = Workdir(location(tmp_path / "out" / ".annotate"), "test")
        given = SourceSettings(source, input_key="question", label_key="answer")
        return work.prepare(given, EngineSettings(str(tmp_path / "model")), {**settings, **changes})

    make_model(tmp_path / "model")
    assert again()["model"] == "runs/base"
    again(model="elsewhere/base", verifier="copy.py")
    for change in (
        {"weights": "f00d"},
        {"model": "b", "weights": "f00d"},
        {"verifier": "b.py", "verifier_sha256": "f"},
    ):
        with pytest.raises(InputError, match=f"holds another run .*{next(iter(change))} was"):
            again(**change)


@pytest.mark.parametrize(("files", "left"), [([[0, 1]], 2), ([[0, 1, 2], [1, 2]], 1), ([[0, 1], [2, 3]], None)])
def test_a_row_that_is_there_twice_is_done_once(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch, files: list[list[int]], left: int | None
) -> None:
    work, config = prepared(tmp_path, source)
    for number, numbers in enumerate(files):
        finish(work, f"file{number}", numbers)
    asked: list[int] = []
    monkeypatch.setattr("openrlhf_cft.jobs.run_job.run", lambda *arguments: asked.append(arguments[-2]) or [])
    run_job(work, config["rows"], None, PoolSettings(), report)  # type: ignore[arg-type]
    assert asked == ([] if left is None else [left])


def test_rows_that_end_the_job_are_told_and_kept(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def end(*_: object) -> None:
        raise JobError(
            "3 consecutive rows killed the engine",
            [Failure("2", "skipped"), Failure("3", "KeyError: 'x'", "Traceback")],
        )

    work, config = prepared(tmp_path, source)
    monkeypatch.setattr("openrlhf_cft.jobs.run_job.run", end)
    with pytest.raises(JobError, match="3 consecutive rows"):
        run_job(work, config["rows"], None, PoolSettings(), report)  # type: ignore[arg-type]
    assert "row '2' failed, the next run retries it: skipped" in caplog.text
    assert list(map(json.loads, (work.root / "failed.jsonl").read_text().splitlines())) == [
        {"id": "2", "error": "skipped"},
        {"id": "3", "error": "KeyError: 'x'", "traceback": "Traceback"},
    ]


def test_a_setting_that_is_left_out_now_is_another_run(tmp_path: Path, source: str) -> None:
    work, config = prepared(tmp_path, source)
    limited = {**config, "verifier_time_limit": 0.01}
    for before, now in ((limited, config), (config, limited)):
        with pytest.raises(InputError, match="holds another run \\(verifier_time_limit was "):
            work._refuse_other(before, now)


def test_files_of_an_earlier_run_are_no_part_of_the_data_set(tmp_path: Path, source: str) -> None:
    work, config = prepared(tmp_path, source)
    finish(work, "file", [0, 1, 2, 3])
    out = location(tmp_path / "out")
    for name in ("part-00000.parquet", "part-00007.parquet", "mine.parquet"):
        (out / name).write_text("old")
    assert write_dataset(out, work, config) == {"rows": 4}
    assert [file.name for file in out.files("")] == ["mine.parquet", "part-00000.parquet"]
    assert pq.read_table(f"{out.path}/part-00000.parquet").num_rows == 0


def test_credentials_are_not_stored(tmp_path: Path, source: str, bucket: str) -> None:
    copy = location(bucket.format("questions.jsonl"))
    location(bucket.format("x")).make_dir()
    copy.write_text(QUESTIONS)
    work, config = prepared(tmp_path, bucket.format("questions.jsonl") + f",{source}")
    assert config["rows"] == 8 and config["source"]["dataset"] == f"s3://bucket/questions.jsonl,{source}"
    assert "secret" not in (work.root / "config.json").read_text()
    engine = EngineSettings("m", engine_args={"hf_token": "secret", "block_size": 32})
    assert engine.public_args == {"block_size": 32} and engine.resolved()["hf_token"] == "secret"
    local = replace(engine, model=str(tmp_path / "model"))
    assert "secret" not in str(settings_record(AnnotateWorkerFactory(local, AnnotateSettings(), VerifierSettings())))
