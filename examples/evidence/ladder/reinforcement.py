"""GRPO from SFT and from CFT, a part of its steps at a time, at the rate at which SFT gains most."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from common import evaluate
from ladder.base import TEMPLATE, Ladder
from ladder.compare import best_rate, checkpoint_of, remove
from training import grpo

PROMPTS = 2  # of a step
# A part is an episode: every question once. So the next part of the same run only asks for one episode more.
SIZES = {"PROMPTS": PROMPTS, "SAMPLES": 8, "MICRO": 8, "PROMPT_LENGTH": 160, "TEMPLATE": TEMPLATE}


def folder(study: Ladder, name: str, rate: float, seed: int) -> Path:
    """Where a run keeps its state, and at last its model."""
    return study.run_dir / f"rl-{name}-{rate:g}-{seed}"


def run_part(study: Ladder, name: str, rate: float, seed: int, part: int) -> dict[str, Any]:
    """A run up to the end of a part: its curves."""
    arm = next(arm for arm in study.arms if arm.name == name)
    out = folder(study, name, rate, seed)
    steps = study.rl_steps // study.rl_parts
    sizes = SIZES | {"EPISODES": part + 1, "SAVE": steps, "LR": rate, "SEED": seed}
    start = checkpoint_of(study, arm, best_rate(study, arm), seed)
    constant = ("--actor.lr_scheduler", "constant")  # another one would hang on the number of parts
    state = out / "checkpoints" / "_actor"
    if (
        state.exists() and not (state / "latest").exists()
    ):  # killed in its first checkpoint, which OpenRLHF cannot load
        shutil.rmtree(out)
    return {"rate": rate, "curves": grpo(study, out.name, start, out, sizes, steps * PROMPTS, *constant)}


def try_part(study: Ladder, rate: float, part: int) -> dict[str, Any]:
    """A part of the run from SFT's first seed, at a rate that may be chosen; at its end, how it answers validation."""
    found = run_part(study, "sft", rate, 1, part)
    if part == study.rl_parts - 1:
        out = folder(study, "sft", rate, 1)
        found["validation"] = evaluate(study, f"{out.name}-validation", out, "validation", 0)
    return found


def chosen_rate(study: Ladder) -> float:
    """The rate at which that run ends with the largest greedy accuracy on validation questions, else the smaller."""

    def accuracy(rate: float) -> float:
        return float(study.result(f"rl-try-{rate:g}-{study.rl_parts - 1}")["validation"]["figures"]["accuracy"])

    return max(sorted(study.rl_rates), key=accuracy)


def seed_part(study: Ladder, name: str, seed: int, part: int) -> dict[str, Any]:
    """A part of a seed's run at the chosen rate."""
    rate = chosen_rate(study)
    if (name, seed) == ("sft", 1):
        return study.result(f"rl-try-{rate:g}-{part}")
    return run_part(study, name, rate, seed, part)


def after(study: Ladder, name: str, seed: int) -> dict[str, Any]:
    """Pass@k of a run's model, on the test questions that are sampled. Then the model is removed."""
    rate = chosen_rate(study)
    out = folder(study, name, rate, seed)
    if not (out / "config.json").exists():
        run_part(study, name, rate, seed, study.rl_parts - 1)
    flags = ["--eval.entropy_positions", 0, "--train.seed", seed]
    found = evaluate(study, f"{out.name}-drawn", out, "drawn", study.samples, *flags)
    for tried in study.rl_rates:
        remove(folder(study, name, tried, seed))
    return found
