"""An evaluation that was interrupted, killed or changed, run again: nothing lost, nothing twice, nothing mixed."""

from __future__ import annotations

import shutil
from collections import ChainMap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scripted_pipeline import QUESTIONS, ScriptedPipeline, arguments, questions

from openrlhf_cft.cli.evaluate import job_of
from openrlhf_cft.data.location import Location
from openrlhf_cft.data.records import read_rows
from openrlhf_cft.engine.scoring_process import PromptResponse, Scored
from openrlhf_cft.engine.vllm_engine import EngineSettings
from openrlhf_cft.errors import Failure
from openrlhf_cft.evaluation.job import evaluate
from openrlhf_cft.evaluation.joint_run import JointRun, Place


def apart(engines: dict[str, EngineSettings]) -> list[dict[str, EngineSettings]]:
    """In place of `sharing`, as on GPUs."""
    return [{name: engine} for name, engine in engines.items()]


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_done_is_not_done_again(
    shared: bool, models: dict[str, Path], pipeline: ScriptedPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []

    def score(model: str, asked: list[PromptResponse], name: str) -> list[Scored]:
        scored.append(Path(model).name)
        zeros = [np.zeros(len(sequence.response_ids), np.float32) for sequence in asked]
        return [Scored(zero, zero) for zero in zeros]

    monkeypatch.setattr("openrlhf_cft.evaluation.entropy_cache.score", score)
    if not shared:
        monkeypatch.setattr("openrlhf_cft.evaluation.job.sharing", apart)
    two = {name: models[name] for name in ("base", "sft")}
    out, data = tmp_path / "out", str(questions(tmp_path / "test.jsonl"))
    if shared:
        pipeline.killed_after = 4  # the eighth row is the second of the second checkpoint
    else:
        pipeline.interrupt_after = 1
    with pytest.raises(KeyboardInterrupt):
        evaluate(job_of(arguments(two, data, out)))
    pipeline.interrupt_after = pipeline.killed_after = None
    first = evaluate(job_of(arguments(two, data, out)))
    both = [{"test/base": QUESTIONS, "test/sft": QUESTIONS}, {"test/sft": QUESTIONS - 2}]
    one_by_one = [{"test/base": QUESTIONS}, {"test/sft": QUESTIONS}]
    assert pipeline.calls == (both if shared else one_by_one), "base was sampled twice"
    again = evaluate(job_of(arguments(two, data, out)))
    assert len(pipeline.calls) == 2 and scored == ["base", "sft"]
    for result in [*first["results"]["test"].values(), *again["results"]["test"].values()]:
        result.pop("seconds")
    assert again == first
    more = f"{data},{questions(tmp_path / 'other.jsonl', 5)}"
    found = evaluate(job_of(arguments(models, more, out)))
    new: list[dict[str, int]] = [{"other/base": 5}, {"other/sft": 5}, {"test/cft": QUESTIONS, "other/cft": 5}]
    assert pipeline.calls[2:] == ([dict(ChainMap(*new))] if shared else new)
    assert scored == ["base", "sft", "base", "sft", "cft"]
    base = [report["results"]["test"]["base"]["figures"] for report in (first, found)]
    assert base[0] == base[1]
    none = evaluate(job_of(arguments(models, more, out, "--eval.entropy_positions", "0")))
    assert len(scored) == 5 and "entropy" not in none["results"]["test"]["base"]["figures"]
    with pytest.raises(ValueError, match=r"holds another run \(sampling was .*0\.6"):
        evaluate(job_of(arguments(models, data, out, "--eval.temperature", "0.6")))


def test_a_run_over_two_data_sets_is_killed(
    models: dict[str, Path], pipeline: ScriptedPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the rows, and in the middle of handing them over; without the second data set at first."""
    one, out = {"base": models["base"]}, tmp_path / "out"
    first, second = (str(questions(tmp_path / f"{name}.jsonl")) for name in ("test", "other"))
    both = arguments(one, f"{first},{second}", out, "--eval.entropy_positions", "0")
    whole = evaluate(job_of(arguments(one, f"{first},{second}", tmp_path / "whole", "--eval.entropy_positions", "0")))
    pipeline.calls.clear()
    pipeline.killed_after = 4
    with pytest.raises(KeyboardInterrupt):
        evaluate(job_of(both))
    pipeline.killed_after = None

    write, written = JointRun._write, []

    def killed(self: JointRun, place: Place, name: str, table: pa.Table) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(name)
        write(self, place, name, table)

    with monkeypatch.context() as patch:
        patch.setattr(JointRun, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(job_of(arguments(one, first, out, "--eval.entropy_positions", "0")))
    evaluate(job_of(arguments(one, first, out, "--eval.entropy_positions", "0")))
    found = evaluate(job_of(both))
    assert pipeline.calls == [{"test/base": QUESTIONS, "other/base": QUESTIONS}, {"other/base": 4}]
    again = evaluate(job_of(both))
    assert len(pipeline.calls) == 2
    for name in ("test", "other"):
        counts = [
            {k: r["results"][name]["base"][k] for k in ("questions", "too_long", "failed")} for r in (found, whole)
        ]
        assert counts[0] == counts[1]
        assert again["results"][name]["base"] == found["results"][name]["base"]
    said = {row["id"]: row["response_token_ids"] for row in read_rows(out / "samples") if row["greedy"]}
    assert len(said) == 2 * (QUESTIONS - 1) - (QUESTIONS - 1), "the data sets' ids are the same"
    assert not list((out / ".evaluate" / "joint" / "base" / "outcomes").iterdir())


def _killed(models: dict[str, Path], pipeline: ScriptedPipeline, tmp_path: Path) -> list[str]:
    """The flags of an evaluation that was killed after four rows, and whose state was deleted then."""
    data, out = questions(tmp_path / "test.jsonl"), tmp_path / "out"
    flags = arguments({"base": models["base"]}, str(data), out, "--eval.entropy_positions", "0")
    pipeline.killed_after = 4
    with pytest.raises(KeyboardInterrupt):
        evaluate(job_of(flags))
    pipeline.killed_after = None
    (state,) = (out / ".evaluate").glob("test-*")
    shutil.rmtree(state)
    return flags


def test_what_a_kill_left_goes_to_a_command_about_other_checkpoints(
    models: dict[str, Path], pipeline: ScriptedPipeline, tmp_path: Path
) -> None:
    out, data = tmp_path / "out", str(questions(tmp_path / "test.jsonl"))
    two = {name: models[name] for name in ("base", "sft")}
    none = ("--eval.entropy_positions", "0")
    pipeline.killed_after = 4
    with pytest.raises(KeyboardInterrupt):
        evaluate(job_of(arguments(two, data, out, *none)))
    pipeline.killed_after = None
    evaluate(job_of(arguments({"sft": models["sft"]}, data, out, *none)))
    evaluate(job_of(arguments(two, data, out, *none)))
    assert pipeline.calls[1:] == [{"test/sft": QUESTIONS - 2}]


def test_rows_of_a_run_that_is_gone_are_not_taken(
    models: dict[str, Path], pipeline: ScriptedPipeline, tmp_path: Path
) -> None:
    flags = _killed(models, pipeline, tmp_path)
    evaluate(job_of([*flags, "--eval.temperature", "0.5"]))
    assert pipeline.calls[1:] == [{"test/base": QUESTIONS}], "they were drawn at another temperature"


def test_a_checkpoint_trained_again_is_another(
    models: dict[str, Path], pipeline: ScriptedPipeline, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    one, data = {"base": tmp_path / "model"}, str(questions(tmp_path / "test.jsonl"))
    shutil.copytree(models["base"], one["base"])
    flags = arguments(one, data, tmp_path / "out", "--eval.entropy_positions", "0")
    evaluate(job_of(flags))
    weights = load_file(one["base"] / "model.safetensors")
    save_file({name: tensor + 1e-3 for name, tensor in weights.items()}, one["base"] / "model.safetensors")
    with pytest.raises(ValueError, match=r"holds another run \(weights was '\w{16}' and is now '\w{16}'\)"):
        evaluate(job_of(flags))


def test_a_data_set_keeps_its_state_under_another_name(
    models: dict[str, Path], pipeline: ScriptedPipeline, tmp_path: Path
) -> None:
    one, out = {"base": models["base"]}, tmp_path / "out"
    for name in "ab":
        (tmp_path / name).mkdir()
    first, second = (str(questions(tmp_path / name / "test.jsonl")) for name in "ab")
    before = evaluate(job_of(arguments(one, first, out)))["results"]["test"]["base"]["figures"]
    found = evaluate(job_of(arguments(one, f"{first},{second}", out)))["results"]
    assert len(pipeline.calls) == 2 and found["a-test"]["base"]["figures"] == before
    for folder in ("samples", "entropy"):
        assert sorted(file.name for file in (out / folder).iterdir()) == [
            "a-test--base.parquet",
            "b-test--base.parquet",
        ]


def test_what_a_kill_left_of_a_run_that_nothing_describes_is_not_taken(
    models: dict[str, Path], pipeline: ScriptedPipeline, tmp_path: Path
) -> None:
    flags = _killed(models, pipeline, tmp_path)
    (tmp_path / "out" / ".evaluate" / "joint" / "base" / "config.json").unlink()
    evaluate(job_of([*flags, "--eval.temperature", "0.5"]))
    assert pipeline.calls[1:] == [{"test/base": QUESTIONS}]
    outcomes = (tmp_path / "out" / ".evaluate").glob("test-*/base/outcomes/*.parquet")
    assert sum(pq.read_table(file).num_rows for file in outcomes) == QUESTIONS


def test_a_kill_before_a_run_is_cleared_changes_nothing(
    models: dict[str, Path], pipeline: ScriptedPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, out = {"base": models["base"]}, tmp_path / "out"
    flags = arguments(one, str(questions(tmp_path / "test.jsonl")), out, "--eval.entropy_positions", "0")
    clear, cleared = JointRun._clear, []

    def killed(self: JointRun) -> None:
        cleared.append(self)
        if len(cleared) == 2:  # the first was before the run
            raise KeyboardInterrupt
        clear(self)

    monkeypatch.setattr(JointRun, "_clear", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(job_of(flags))
    found = evaluate(job_of(flags))["results"]["test"]["base"]
    assert (found["questions"], found["too_long"], found["failed"]) == (QUESTIONS - 1, 1, 0)
    assert len(pipeline.calls) == 1 and not list((out / ".evaluate" / "joint" / "base" / "outcomes").iterdir())


def test_a_failed_row_is_named_with_its_checkpoint_and_data_set(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(source: Location, *_: object) -> list[Failure]:
        return [Failure(row["id"], "planted") for row in source.rows()][-1:]

    monkeypatch.setattr("openrlhf_cft.jobs.run_job.run", failing)
    data = f"{questions(tmp_path / 'test.jsonl')},{questions(tmp_path / 'other.jsonl')}"
    none = ("--eval.entropy_positions", "0")
    evaluate(job_of(arguments({"base": models["base"]}, data, tmp_path / "one", *none)))
    assert "evaluate base: row 'other: 5' failed, the next run retries it: planted" in caplog.text
    two = {name: models[name] for name in ("base", "sft")}
    evaluate(job_of(arguments(two, data, tmp_path / "two", *none)))
    assert "evaluate base, sft: row 'sft: other: 5' failed" in caplog.text
