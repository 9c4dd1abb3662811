"""The command: without its flag the stock script, with it CFT, and one clear sentence where it refuses."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from train_helpers import (
    VOCAB,
    environment,
    launch,
    make_rows,
    make_training_folder,
    run_command,
    scalars,
    tail,
)

from openrlhf_cft.cli import train_sft
from openrlhf_cft.data import records
from openrlhf_cft.train.arguments import Options

MODULE = "openrlhf_cft.cli.train_sft"
STOCK = "openrlhf.cli.train_sft"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_training_folder(tmp_path_factory.mktemp("train_sft"))


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
        "--ckpt.save_steps": 2,
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


def wheel_script() -> str:
    """The stock script as in the wheel, also where the set-up has patched it for the CPU."""
    import openrlhf

    site = Path(openrlhf.__file__).parents[1]
    kept = site / ".openrlhf_cft_patches" / "wheel" / "openrlhf" / "cli" / "train_sft.py"
    return (kept if kept.exists() else site / "openrlhf" / "cli" / "train_sft.py").read_text()


def patched(script: str) -> str:
    """The stock script with `patches/optional/critical_mask.patch`."""
    import whatthepatch

    patch = Path(__file__).parents[2] / "patches" / "optional" / "critical_mask.patch"
    (diff,) = whatthepatch.parse_patch(patch.read_text())
    return "\n".join(whatthepatch.apply_diff(diff, script)) + "\n"


def own_tree(folder: Path) -> Path:
    """The source of the installed OpenRLHF with our flag patched in, as somebody who keeps a tree would do it."""
    import openrlhf

    tree = folder / "tree"
    shutil.copytree(Path(openrlhf.__file__).parent, tree / "openrlhf", ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "openrlhf" / "cli" / "train_sft.py").write_text(patched(wheel_script()))
    return tree


@pytest.fixture(scope="module")
def runs(folder: Path) -> Any:
    """Launched runs by name, two at a time; each starts when the first test asks for any."""
    data = folder / "data"
    missing = ["--critical_mask", *flags(folder, folder / "nowhere", "missing")]
    commands = {
        "stock": lambda: launch(["--module", STOCK, *flags(folder, data, "stock")]),
        "plain": lambda: launch(["--module", MODULE, *flags(folder, data, "plain")]),
        "critical": lambda: launch(
            ["--module", MODULE, "--critical_mask", *flags(folder, data, "critical"), "--ckpt.save_hf"]
        ),
        "bad row": lambda: launch(
            ["--module", MODULE, "--critical_mask", *flags(folder, json_with_a_bad_row(folder), "bad")], processes=2
        ),
        "own tree": lambda: launch(
            ["--module", STOCK, "--critical_mask", *flags(folder, data, "own-tree")], tree=own_tree(folder)
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
def test_evaluation_compares_critical_with_other_tokens(runs: Any, folder: Path) -> None:
    assert runs("critical").returncode == 0
    logs = scalars(folder / "critical" / "tensorboard")
    for name in ("critical_loss", "other_loss", "critical_entropy", "other_entropy", "critical_share"):
        assert len(logs[f"eval/{name}"]) == 2, name  # one an epoch
    assert logs["eval/critical_loss"][1] < logs["eval/critical_loss"][0]
    assert 0 < logs["eval/other_entropy"][0] < math.log(VOCAB)
    assert "evaluation at step 6: critical share" in runs("critical").stdout


@pytest.mark.slow
def test_a_resumed_run_goes_on_along_the_same_curve(runs: Any, folder: Path) -> None:
    assert runs("critical").returncode == 0
    checkpoints = folder / "resumed" / "checkpoints"
    shutil.copytree(folder / "critical" / "checkpoints" / "global_step4", checkpoints / "global_step4")
    (checkpoints / "latest").write_text("global_step4")
    resumed = flags(folder, folder / "data", "resumed")
    result = launch(["--module", MODULE, "--critical_mask", *resumed, "--ckpt.load_enable"])
    assert result.returncode == 0, tail(result)
    assert "consumed_samples: 32" in result.stdout
    whole, rest = (scalars(folder / name / "tensorboard") for name in ("critical", "resumed"))
    for tag in ("train/critical_loss", "train/loss_mean", "train/grad_norm", "train/lr", "train/critical_tokens"):
        assert rest[tag] == whole[tag][4:], tag
    assert "step 6/6" in result.stdout


@pytest.mark.slow
def test_a_tree_of_ones_own_with_the_patch_is_the_plugin(runs: Any, folder: Path) -> None:
    result = runs("own tree")
    assert result.returncode == 0, tail(result)
    assert runs("critical").returncode == 0
    assert scalars(folder / "own-tree" / "tensorboard") == scalars(folder / "critical" / "tensorboard")


def test_the_patch_applies_to_the_wheel() -> None:
    wheel = wheel_script()
    assert patched(wheel).count("\n") == wheel.count("\n") + 14
    compile(patched(wheel), "train_sft.py", "exec")


@pytest.mark.slow
def test_what_a_run_prints(runs: Any) -> None:
    printed = runs("critical").stdout
    assert "2 rows skipped, none trained in them" in printed
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
    checkpoints = folder / "critical" / "checkpoints"
    hf = AutoModelForCausalLM.from_pretrained(checkpoints / "global_step4_hf", dtype="auto").state_dict()
    deepspeed = torch.load(checkpoints / "global_step4" / "mp_rank_00_model_states.pt", weights_only=False)["module"]
    assert all(torch.equal(hf[name], tensor) for name, tensor in deepspeed.items())


@pytest.mark.slow
def test_a_bad_row_found_after_loading_is_one_sentence_for_all_ranks(runs: Any) -> None:
    result = runs("bad row")
    assert result.returncode != 0
    assert result.stderr.count("train_sft: row 'row-4': column 'critical_mask' has ") == 1, tail(result)
    assert "InputError" not in result.stderr


@pytest.mark.slow
def test_a_missing_data_set_is_one_sentence_before_the_model_loads(runs: Any, folder: Path) -> None:
    result = runs("missing")
    assert result.returncode == 2
    assert f"train_sft: data set '{folder / 'nowhere'}' does not exist" in result.stderr, tail(result)
    assert "Traceback" not in result.stderr
    assert "CriticalTokenActor" not in result.stdout


@pytest.mark.parametrize(
    ("argv", "options", "others"),
    [
        (["--a.b", "1"], None, ["--a.b", "1"]),
        (["--critical_mask"], Options(), []),
        (["--critical_mask", "--a.b", "-1"], Options(), ["--a.b", "-1"]),
        (["--x", "--critical_mask", "col", "--a.b", "-1"], Options("col"), ["--x", "--a.b", "-1"]),
        (["--rank=1", "--critical_mask=col", "--a.b", "0.9"], Options("col"), ["--rank=1", "--a.b", "0.9"]),
        (["--critical", "1", "--critical_mask_x"], None, ["--critical", "1", "--critical_mask_x"]),  # not abbreviated
        (["--cft.loss", "dft"], Options(None, loss="dft"), []),
        (["--cft.loss", "nll"], None, []),
        (
            ["--critical_mask", "--cft.missing", "drop", "--cft.loss=dft", "--cft.dense_logits"],
            Options(missing="drop", loss="dft", dense_logits=True),
            [],
        ),
    ],
)
def test_our_flags_are_taken_off_and_all_others_stay(argv: list[str], options: Options | None, others: Any) -> None:
    assert train_sft.split_flags(argv) == (options, others)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--critical_mask", "a", "--critical_mask=b"], "--critical_mask was given twice (a, b): give it once"),
        (["--critical_mask", "--critical_mask"], "--critical_mask was given twice (critical_mask, critical_mask)"),
        (["--critical_mask", "--cft.loss", "nll", "--cft.loss", "dft"], "--cft.loss was given twice (nll, dft)"),
        (["--critical_mask="], "--critical_mask= names no column"),
        (["--critical_mask", "--cft.missing", "skip"], "argument --cft.missing: invalid choice: 'skip' (choose from "),
        (["--cft.missing", "drop"], "--cft.missing has no meaning without --critical_mask"),
        (["--cft.dense_logits"], "--cft.dense_logits has no meaning without --critical_mask"),
    ],
)
def test_bad_flags(
    argv: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["train_sft", *argv])
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(SystemExit) as raised:
        train_sft.main()
    assert raised.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "waits"), [("0", []), ("1", [train_sft.SECONDS_FOR_THE_FIRST_RANK])])
def test_the_first_rank_of_a_machine_prints_first(
    rank: str, waits: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(SystemExit):
        train_sft.fail("sentence")
    assert waited == waits and capsys.readouterr().err == "train_sft: sentence\n"


@pytest.mark.parametrize("module", ["openrlhf_cft.train.preflight", MODULE])
def test_light_modules_stay_light(module: str) -> None:
    heavy = ["torch", "deepspeed", "openrlhf", "transformers", "datasets", "vllm", "ray"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True, timeout=600
    )
    assert result.stdout.strip() == "[]"
