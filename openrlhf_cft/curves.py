"""Read curves from OpenRLHF's TensorBoard logs, of supervised fine-tuning and of reinforcement learning.

curves = read_curves("runs/grpo/tensorboard/cft")
curves["train/entropy_loss"].values[0]      # nats a token, before the first step
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrlhf_cft.errors import InputError

ENTROPY = "train/entropy_loss"  # OpenRLHF's name for the policy's mean entropy before the step, in nats per token
REWARD = "train/rollout/reward_mean"  # over the responses of the step; with rewards 0 and 1 it is the accuracy


@dataclass(frozen=True)
class Curve:
    """One scalar over a run."""

    steps: list[int]  # ascending, each once
    values: list[float]  # (steps,)


def read_curves(folder: str | Path) -> dict[str, Curve]:
    """Every scalar of one run, by its tag.

    A run that was killed and resumed has logged the steps since its checkpoint twice; the later value counts.

    Args:
        folder: the run's own folder, `--logger.tensorboard_dir`/`--logger.wandb.run_name`.

    Raises:
        InputError: there are no event files, or no scalars in them.
    """
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    if not list(Path(folder).glob("events.out.tfevents.*")):
        raise InputError(f"no TensorBoard event files in {str(folder)!r}")
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})  # 0: all of them, not a sample
    events.Reload()
    tags = events.Tags()[SCALARS]
    if not tags:
        raise InputError(f"no scalars in the TensorBoard event files in {str(folder)!r}")
    return {tag: _curve(events.Scalars(tag)) for tag in tags}


def _curve(events: list[Any]) -> Curve:
    by_step = {event.step: event.value for event in sorted(events, key=lambda event: event.wall_time)}
    steps = sorted(by_step)
    return Curve(steps, [by_step[step] for step in steps])
