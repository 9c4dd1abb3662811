"""The command: without its flag the stock script, with it CFT, and one clear sentence where it refuses."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from train_helpers import environment, launch, make_model, make_rows, run_command, scalars, tail, write_rows

from openrlhf_cft import records
from openrlhf_cft.cli import train_sft

MODULE = "openrlhf_cft.cli.train_sft"
STOCK = "openrlhf.cli.train_sft"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and an annotated data set that has text, too, so that the stock script can train on it."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("train_sft")
    tokenizer = AutoTokenizer.from_pretrained(make_model(folder / "model"))
    rows = make_rows(26)
    for row in rows:
        row[records.PROMPT] = tokenizer.decode(row[records.PROMPT_IDS])
        row[records.RESPONSE] = tokenizer.decode(row[records.RESPONSE_IDS])
    for row in rows[:2]:
        row[records.MASK] = [0.0] * len(row[records.MASK])
    write_rows(folder / "data", rows, {"tokenizer_fingerprint": records.tokenizer_fingerprint(tokenizer)})
    return folder


def flags(folder: Path, dataset: Path, name: str) -> list[str]:
    values = {
        "--model.model_name_or_path": folder / "model",
        "--data.dataset": dataset,
        "--eval.dataset": dataset,
        "--data.input_key": records.PROMPT,
        "--data.output_key": records.RESPONSE,
        "--train.batch_size": 8,
        "--train.micro_batch_size": 2,
        "--train.max_epochs": 2,
        "--adam.lr": 1e-3,
        "--ds.attn_implementation": "sdpa",
        "--ckpt.output_dir": folder / name / "model",
        "--ckpt.path": folder / name / "checkpoints",
        "--ckpt.save_steps": 3,
        "--logger.tensorboard_dir": folder / name / "tensorboard",
    }
    return [str(part) for flag in values.items() for part in flag]


def json_with_a_bad_row(folder: Path) -> Path:
    import json

    rows = make_rows(9)
    rows[4][records.MASK].append(1.0)
    path = folder / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def runs(folder: Path) -> Any:
    """Launched runs by name, two at a time; each starts when the first test asks for any."""
    data = folder / "data"
    missing = ["--critical_mask", *flags(folder, folder / "nowhere", "missing")]
    commands = {
        "stock": lambda: launch(["--module", STOCK, *flags(folder, data, "stock")]),
        "plain": lambda: launch(["--module", MODULE, *flags(folder, data, "plain")]),
        "critical": lambda: launch(["--module", MODULE, "--critical_mask", *flags(folder, data, "critical")]),
        "bad row": lambda: launch(
            ["--module", MODULE, "--critical_mask", *flags(folder, json_with_a_bad_row(folder), "bad")], processes=2
        ),
        "missing": lambda: run_command([sys.executable, "-m", MODULE, *missing]),
    }
    with ThreadPoolExecutor(2) as pool:

        @cache
        def started() -> dict[str, Future[subprocess.CompletedProcess[str]]]:
            return {name: pool.submit(command) for name, command in commands.items()}

        yield lambda name: started()[name].result()


@pytest.mark.slow
def test_without_the_flag_it_is_the_stock_script(runs: Any, folder: Path) -> None:
    for name in ("stock", "plain"):
        assert runs(name).returncode == 0, tail(runs(name))
    stock, plain = (scalars(folder / name / "tensorboard") for name in ("stock", "plain"))
    assert len(stock["train/loss_mean"]) == 6
    assert plain == stock  # every figure of every step, and of evaluation
    assert not any("critical" in tag for tag in plain)


@pytest.mark.slow
def test_with_the_flag_it_trains_on_critical_tokens_and_logs_them(runs: Any, folder: Path) -> None:
    result = runs("critical")
    assert result.returncode == 0, tail(result)
    logs, stock = (scalars(folder / name / "tensorboard") for name in ("critical", "stock"))
    assert logs["train/loss_mean"] != stock["train/loss_mean"]
    assert logs["train/critical_loss"] == pytest.approx(logs["train/loss_mean"], rel=1e-5)
    assert logs["train/critical_loss"][-1] < logs["train/critical_loss"][0]
    rows = [row for row in records.read_rows(folder / "data") if any(row[records.MASK])]
    trained = sum(sum(row[records.MASK]) for row in rows)
    assert sum(logs["train/critical_tokens"]) == 2 * trained  # 24 rows, 3 steps an epoch, 2 epochs: each row twice
    assert all(0 < share < 1 for share in logs["train/critical_share"])
    assert logs["eval/critical_loss"] and all(loss > 0 for loss in logs["eval/critical_loss"])


@pytest.mark.slow
def test_what_a_run_prints(runs: Any) -> None:
    printed = runs("critical").stdout
    assert "2 rows skipped for having none" in printed
    assert "one example, trained tokens marked:\n" in printed and "⟦" in printed
    assert "step 6/6  loss " in printed and "eta 0:00:00" in printed


@pytest.mark.slow
def test_checkpoints_are_saved_and_load(runs: Any, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    runs("critical")
    assert (folder / "critical" / "checkpoints" / "global_step6").is_dir()
    before, after = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).state_dict()
        for path in (folder / "model", folder / "critical" / "model")
    )
    assert before.keys() == after.keys()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert not torch.equal(before["lm_head.weight"], after["lm_head.weight"])


@pytest.mark.slow
def test_a_bad_row_found_after_loading_is_one_sentence_for_all_ranks(runs: Any) -> None:
    result = runs("bad row")
    assert result.returncode != 0
    assert result.stderr.count("train_sft: row 'row-4': column 'critical_mask' has ") == 1, tail(result)
    assert "InputError" not in result.stderr


@pytest.mark.slow
def test_a_missing_data_set_is_one_sentence_before_the_model_loads(runs: Any, folder: Path) -> None:
    result = runs("missing")
    assert result.returncode == 1
    assert f"train_sft: data set '{folder / 'nowhere'}' does not exist" in result.stderr, tail(result)
    assert "Traceback" not in result.stderr
    assert "CriticalTokenActor" not in result.stdout


@pytest.mark.parametrize(
    ("argv", "column", "others"),
    [
        (["--a.b", "1"], None, ["--a.b", "1"]),
        (["--critical_mask"], "critical_mask", []),
        (["--critical_mask", "--a.b", "-1"], "critical_mask", ["--a.b", "-1"]),
        (["--x", "--critical_mask", "col", "--a.b", "-1"], "col", ["--x", "--a.b", "-1"]),
        (["--local_rank=1", "--critical_mask=col", "--adam.betas", "0.9", "0.95"], "col", None),
        (["--critical", "1", "--critical_mask_x"], None, ["--critical", "1", "--critical_mask_x"]),  # no abbreviations
    ],
)
def test_our_flag_is_taken_off_and_all_others_stay(argv: list[str], column: str | None, others: Any) -> None:
    expected = others if others is not None else ["--local_rank=1", "--adam.betas", "0.9", "0.95"]
    assert train_sft.split_flags(argv) == (column, expected)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--critical_mask", "a", "--critical_mask=b"], "--critical_mask was given 2 times (a, b): give it once"),
        (["--critical_mask="], "--critical_mask= names no column"),
    ],
)
def test_bad_flags(argv: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train_sft", *argv])
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(SystemExit) as raised:
        train_sft.main()
    assert message in str(raised.value.code)


@pytest.mark.parametrize(("rank", "waits"), [("0", []), ("1", [train_sft.SECONDS_FOR_THE_FIRST_RANK])])
def test_the_first_rank_of_a_machine_prints_first(rank: str, waits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(SystemExit, match="train_sft: sentence"):
        train_sft.fail("sentence")
    assert waited == waits


@pytest.mark.parametrize("module", ["openrlhf_cft.train.preflight", MODULE])
def test_light_modules_stay_light(module: str) -> None:
    heavy = ["torch", "deepspeed", "openrlhf", "transformers", "datasets", "vllm", "ray"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"
