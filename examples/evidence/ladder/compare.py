"""The comparison: every arm at every learning rate on validation questions, the best rate on the test questions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from arms import HELD_OUT, Arm
from common import evaluate, evaluate_all, responses
from ladder.base import Ladder
from training import RL_ARMS, train

from openrlhf_cft.curves import read_curves
from openrlhf_cft.data.records import Verdict

ALL_TOKENS = 100_000  # more than the held-out responses have


def run_name(rate: float, seed: int) -> str:
    """A run of an arm, in its sweep."""
    return f"{rate:g}-{seed}"


def runs_of(study: Ladder) -> list[tuple[float, int]]:
    """Every rate and seed of a sweep."""
    return [(rate, seed) for rate in study.rates for seed in range(1, study.sweep_seeds + 1)]


def train_run(study: Ladder, arm: Arm, rate: float, seed: int) -> dict[str, Any]:
    """An arm at a learning rate, and how many optimizer steps that took: rows without a trained token are left out."""
    path = checkpoint_of(study, arm, rate, seed)
    curves = read_curves(study.run_dir / "tensorboard" / path.name)
    return {"checkpoint": path.name, "steps": max((curve.steps[-1] for curve in curves.values()), default=None)}


def sweep(study: Ladder, arm: Arm) -> dict[str, Any]:
    """All runs of an arm on the validation questions: accuracy and entropy. One engine serves them all."""
    checkpoints = {run_name(*run): checkpoint_of(study, arm, *run) for run in runs_of(study)}
    return {"runs": evaluate_all(study, f"sweep-{arm.name}", checkpoints, "validation", 0, *held_out(study))}


def held_out(study: Ladder) -> list[object]:
    """Entropy and loss on the tokens of held-out responses: on all of them, the same for every seed."""
    return ["--eval.annotated", study.results / HELD_OUT, "--eval.entropy_positions", ALL_TOKENS]


def checkpoint_of(study: Ladder, arm: Arm, rate: float, seed: int) -> Path:
    """The checkpoint of an arm, a rate and a seed; trained where it is missing."""
    path = study.run_dir / "checkpoints" / f"{arm.name}-{run_name(rate, seed)}"
    return path if (path / "config.json").exists() else train(study, path.name, arm, rate, seed)


def best_rate(study: Ladder, arm: Arm) -> float:
    """The rate with the largest mean greedy accuracy on the validation questions; the smallest one of several."""
    runs = study.result(f"sweep-{arm.name}")["runs"]

    def accuracy(rate: float) -> float:
        found = [runs[run_name(rate, seed)]["greedy"] for seed in range(1, study.sweep_seeds + 1)]
        return float(sum(bits.count("1") for bits in found))

    return max(sorted(study.rates), key=accuracy)


def tested(study: Ladder, arm: Arm | None, seed: int) -> tuple[float | None, Path]:
    """The rate of an arm, and its checkpoint of a seed; the base, which has no rate."""
    if arm is None:
        return None, Path(study.base())
    rate = best_rate(study, arm)
    return rate, checkpoint_of(study, arm, rate, seed)


def on_test(study: Ladder, arm: Arm | None, seed: int) -> dict[str, Any]:
    """All test questions, answered greedily by an arm at its best rate, or by the base; other questions, if given."""
    name, flags = f"test-{arm.name}-{seed}" if arm else "test-base", ["--train.seed", seed]
    rate, checkpoint = tested(study, arm, seed)
    found = {"rate": rate, **evaluate(study, name, checkpoint, "test", 0, *held_out(study), *flags)}
    if study.given and (Path(study.given) / "other.jsonl").exists():
        flags += ["--eval.entropy_positions", 0]
        found["other"] = evaluate(study, f"{name}-other", checkpoint, "other", 0, *flags)["figures"]
    return found


def on_drawn(study: Ladder, arm: Arm | None, seed: int) -> dict[str, Any]:
    """Samples of the first test questions. Afterwards the checkpoint is not needed: only GRPO starts from some."""
    name = f"drawn-{arm.name}-{seed}" if arm else "drawn-base"
    rate, checkpoint = tested(study, arm, seed)
    flags = ["--eval.entropy_positions", 0, "--train.seed", seed]
    found = evaluate(study, name, checkpoint, "drawn", study.samples, *flags)
    found["phrasings"] = phrasings(responses(study, name, "drawn"))
    if arm:
        forget(study, arm, seed, rate)
    return found


def phrasings(samples: list[dict[str, Any]]) -> dict[str, float | int | None]:
    """Of questions with two correct samples at least: different texts among the correct samples, as a mean share."""
    correct: dict[str, list[str]] = {}
    for row in samples:
        if not row["greedy"] and row["verdict"] == Verdict.CORRECT:
            correct.setdefault(row["id"], []).append(row["response"].strip())
    shares = [len(set(texts)) / len(texts) for texts in correct.values() if len(texts) > 1]
    return {"questions": len(shares), "distinct": sum(shares) / len(shares) if shares else None}


def forget(study: Ladder, arm: Arm, seed: int, kept: float | None) -> None:
    """Remove the checkpoints of a seed, half a gigabyte each, but that which reinforcement learning starts from."""
    for rate in study.rates:
        if not (rate == kept and arm.name in RL_ARMS and seed <= study.rl_seeds):
            remove(study.run_dir / "checkpoints" / f"{arm.name}-{run_name(rate, seed)}")


def remove(folder: Path) -> None:
    """Remove a checkpoint. Its name goes first: half of one would pass for a whole one."""
    if folder.exists():
        shutil.rmtree(folder.rename(folder.with_name(f"{folder.name}.removed")))
