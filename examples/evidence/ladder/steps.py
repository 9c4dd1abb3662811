"""The steps of the second study, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from common import Step
from data import annotate, base, held_out, kinds, masks
from ladder.base import Ladder, gate, ladder_questions, require_gate, train_base_part
from ladder.compare import on_drawn, on_test, run_name, runs_of, sweep, train_run
from ladder.rates import annotate_rated, horizon, rated_masks
from ladder.reinforcement import after, seed_part, try_part
from ladder.rejection import rejection_part, rejection_rows
from training import RL_ARMS


def ladder_steps(study: Ladder) -> Iterator[Step]:
    """All steps. Those after the gate need it passed."""
    yield Step("questions", partial(ladder_questions, study))
    for part in range(study.base_parts):
        yield Step(f"base-{part}", partial(train_base_part, study, part))
    yield Step("gate", partial(gate, study))
    for step in [*data_steps(study), *comparison_steps(study), *reinforcement_steps(study)]:
        yield Step(step.name, partial(behind_gate, study, step.make))


def behind_gate(study: Ladder, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    require_gate(study)
    return make()


def data_steps(study: Ladder) -> Iterator[Step]:
    """What is trained on, and how often success rates say what greedy rollouts say."""
    yield Step("base-validation", partial(base, study))
    for part in range(study.parts):
        yield Step(f"annotate-{part}", partial(annotate, study, part))
    yield Step("held-out", partial(held_out, study, "held"))
    yield Step("masks", partial(masks, study))
    yield Step("kinds", partial(kinds, study))
    for part in range(study.parts):
        yield Step(f"rejection-{part}", partial(rejection_part, study, part))
    yield Step("rejection", partial(rejection_rows, study))
    for part in range(study.rated_parts):
        yield Step(f"rated-{part}", partial(annotate_rated, study, "rated", part))
    yield Step("rated-masks", partial(rated_masks, study))
    for part in range(study.deep_parts):
        yield Step(f"deep-{part}", partial(annotate_rated, study, "deep", part))
    yield Step("horizon", partial(horizon, study))


def comparison_steps(study: Ladder) -> Iterator[Step]:
    """Arm by arm: its rates, then its test. Other arms' checkpoints are not there at that time: they are large."""
    yield Step("test-base", partial(on_test, study, None, 0))
    yield Step("drawn-base", partial(on_drawn, study, None, 0))
    for arm in study.arms:
        for rate, seed in runs_of(study):
            yield Step(f"train-{arm.name}-{run_name(rate, seed)}", partial(train_run, study, arm, rate, seed))
        yield Step(f"sweep-{arm.name}", partial(sweep, study, arm))
        for seed in range(1, (study.many_seeds if arm.many else study.few_seeds) + 1):
            yield Step(f"test-{arm.name}-{seed}", partial(on_test, study, arm, seed))
            yield Step(f"drawn-{arm.name}-{seed}", partial(on_drawn, study, arm, seed))


def reinforcement_steps(study: Ladder) -> Iterator[Step]:
    """GRPO: the rates that may be chosen, then every seed from both starts."""
    for rate in study.rl_rates:
        for part in range(study.rl_parts):
            yield Step(f"rl-try-{rate:g}-{part}", partial(try_part, study, rate, part))
    for seed in range(1, study.rl_seeds + 1):
        for name in RL_ARMS:
            for part in range(study.rl_parts):
                yield Step(f"rl-{name}-{seed}-{part}", partial(seed_part, study, name, seed, part))
            yield Step(f"rl-drawn-{name}-{seed}", partial(after, study, name, seed))
