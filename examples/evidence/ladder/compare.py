"""The comparison: every arm at every learning rate on validation questions, the best rate on the test questions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from arms import HELD_OUT, Arm
from common import evaluate, responses
from ladder.base import Ladder
from training import RL_ARMS, train

from openrlhf_cft.data.records import Verdict


def sweep_name(arm: Arm, rate: float, seed: int) -> str:
    return f"sweep-{arm.name}-{rate:g}-{seed}"


def sweep_seed(study: Ladder, arm: Arm, rate: float, seed: int) -> dict[str, Any]:
    """An arm at a learning rate: accuracy and entropy on the validation questions."""
    name = sweep_name(arm, rate, seed)
    return {"rate": rate, **evaluate(study, name, checkpoint_of(study, arm, rate, seed), "validation", 0)}


def checkpoint_of(study: Ladder, arm: Arm, rate: float, seed: int) -> Path:
    """The checkpoint of an arm, a rate and a seed; trained where it is missing."""
    path = study.run_dir / "checkpoints" / sweep_name(arm, rate, seed)
    return path if (path / "config.json").exists() else train(study, path.name, arm, rate, seed)


def best_rate(study: Ladder, arm: Arm) -> float:
    """The rate with the largest mean greedy accuracy on the validation questions; the smallest one of several."""

    def accuracy(rate: float) -> float:
        seeds = range(1, study.sweep_seeds + 1)
        found = [study.result(sweep_name(arm, rate, seed))["figures"]["accuracy"] for seed in seeds]
        return float(sum(found) / len(found))

    return max(sorted(study.rates), key=accuracy)


def on_test(study: Ladder, arm: Arm | None, seed: int) -> dict[str, Any]:
    """An arm at its best rate, or the base, on the test questions: all of them greedily, the first of them sampled."""
    name = f"test-{arm.name}-{seed}" if arm else "test-base"
    rate = best_rate(study, arm) if arm else None
    checkpoint = checkpoint_of(study, arm, rate, seed) if arm and rate else Path(study.base())
    flags = ["--train.seed", seed]
    greedy = evaluate(study, name, checkpoint, "test", 0, "--eval.annotated", study.results / HELD_OUT, *flags)
    sampled = evaluate(
        study, f"{name}-drawn", checkpoint, "drawn", study.samples, "--eval.entropy_positions", 0, *flags
    )
    found: dict[str, Any] = {"rate": rate, "greedy": greedy, "sampled": sampled}
    if study.given and (Path(study.given) / "other.jsonl").exists():
        found["other"] = evaluate(
            study, f"{name}-other", checkpoint, "other", 0, "--eval.entropy_positions", 0, *flags
        )
    found["phrasings"] = phrasings(responses(study, f"{name}-drawn", "drawn"))
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
            shutil.rmtree(study.run_dir / "checkpoints" / sweep_name(arm, rate, seed), ignore_errors=True)
