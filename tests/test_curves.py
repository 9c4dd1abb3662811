"""Curves from event files, written by OpenRLHF's own logger."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from openrlhf.utils.logging_utils import TensorboardLogger

from openrlhf_cft.curves import ENTROPY, REWARD, Curve, read_curves

SCRIPT = Path(__file__).parents[1] / "examples" / "rl_curves.py"


def write(folder: Path, rows: dict[int, tuple[float, float]]) -> Path:
    """A run's log: entropy and reward by step, with a sampled text as OpenRLHF writes it."""
    where = SimpleNamespace(tensorboard_dir=str(folder.parent), wandb=SimpleNamespace(run_name=folder.name))
    logger = TensorboardLogger(SimpleNamespace(logger=where))
    for step, (entropy, reward) in rows.items():
        names = {ENTROPY: entropy, REWARD: reward}
        logs = {name.removeprefix("train/"): value for name, value in names.items()}
        logger.log_train(step, {**logs, "generated_samples": ["2 + 3 = 5", reward]})
    logger.log_eval(max(rows), {"eval_default_pass1": 0.5})
    logger.close()
    return folder


def test_every_scalar_by_its_tag(tmp_path: Path) -> None:
    rows = {step: (1 / step, step / 8192) for step in range(1, 1501)}  # more than TensorBoard keeps of a sample
    curves = read_curves(write(tmp_path / "run", rows))
    assert set(curves) == {ENTROPY, REWARD, "eval/eval_default_pass1"}
    assert curves[REWARD] == Curve(list(rows), [reward for _, reward in rows.values()])
    assert curves["eval/eval_default_pass1"] == Curve([1500], [0.5])


def test_a_run_that_was_killed_and_went_on(tmp_path: Path) -> None:
    write(tmp_path / "run", {1: (4.0, 0.0), 2: (3.0, 0.25), 3: (2.0, 0.5)})
    # A second writer within the same second would take the file name of the first.
    (first,) = (tmp_path / "run").iterdir()
    first.rename(first.with_name(first.name + ".0"))
    curves = read_curves(write(tmp_path / "run", {3: (2.5, 0.625), 4: (1.0, 1.0)}))
    assert curves[ENTROPY] == Curve([1, 2, 3, 4], [4.0, 3.0, 2.5, 1.0])
    assert curves[REWARD] == Curve([1, 2, 3, 4], [0.0, 0.25, 0.625, 1.0])


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no TensorBoard event files in '.*absent'"):
        read_curves(tmp_path / "absent")
    (tmp_path / "events.out.tfevents.1.host").touch()
    with pytest.raises(ValueError, match="no scalars"):
        read_curves(tmp_path)


def test_the_figure_and_the_report(tmp_path: Path) -> None:
    arms = {"sft": [(1.0, 0.25), (3.0, 0.75)], "cft": [(2.0, 0.5), (4.0, 0.5)]}
    runs = [
        f"{name}={write(tmp_path / f'{name}-{seed}', {1: (entropy, reward), 2: (entropy / 2, reward)})}"
        for name, seeds in arms.items()
        for seed, (entropy, reward) in enumerate(seeds)
    ]
    write(tmp_path / "cft-1", {3: (9.0, 1.0)})  # only one seed has come so far
    command = [sys.executable, str(SCRIPT), "--output_dir", str(tmp_path), "--runs", *runs]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    last = json.loads(result.stdout.splitlines()[-1])
    means = {"seeds": 2, "steps": 2, "entropy_start": 2.0, "entropy_end": 1.0, "reward_last": 0.5}
    margins = {"entropy_start_margin": 12.706, "entropy_end_margin": 6.353, "reward_last_margin": 3.1765}
    assert last["sft"] == {**means, **margins, "reward": [0.5, 0.5]}
    assert (last["cft"]["entropy_start"], last["cft"]["steps"]) == (3.0, 2)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["differences"]["cft - sft"]["entropy_end"] == {"mean": 0.5, "seeds": 2, "margin": 0.0}
    assert report["arms"] == last and len(report["curves"]["cft"][1][REWARD]["steps"]) == 3
    assert (tmp_path / "rl_start.png").read_bytes().startswith(b"\x89PNG")


def test_the_band_is_that_of_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seeds whose entropy falls: each step's raw interval lies below the running mean."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import rl_curves

    values = [[2.0 / step + 0.01 * seed for seed in range(3)] for step in range(1, 21)]
    found = rl_curves.smoothed(values)
    for i, each in enumerate(found):
        window = values[max(0, i + 1 - rl_curves.WINDOW) : i + 1]
        assert each["mean"] == pytest.approx(sum(map(sum, window)) / (3 * len(window)))
        assert 0 < each["margin"] < 0.05, "it is of three seeds that differ by 0.01"
