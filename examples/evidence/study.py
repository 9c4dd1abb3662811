"""Does CFT keep its promise? A small, honest study: `make evidence`; the same command goes on where it stopped.

    python examples/evidence/study.py [--study ladder] [--minutes 60] [--results DIR] [--model M --train 2600 ...]

Every step is under ten minutes on 2 CPU cores, and its figures are a small JSON file in `results/`, kept in the
repository: a step whose file is there is done. With `--minutes` no step starts after that time. What is large
(checkpoints, samples) is in `--run_dir`, and made again where it is missing.

1. Questions are split into training, validation and test before anything is measured.
2. The model's own greedy responses to training questions are verified and annotated once (Strict-3); every mask is
   derived from that, so all arms (`arms.py`) see the same rows.
3. The learning rate of each arm is the best of one sweep for all, by greedy accuracy on the validation questions.
4. Each arm is trained with several seeds and evaluated on the test questions, which nothing before has looked at.
"""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from arms import Arm
from common import Settings, Step
from data import annotate, base, held_out, kinds, masks, questions, rejection
from ladder.base import Ladder, ladder_flags
from ladder.steps import ladder_steps
from training import RL_ARMS, evaluate_test, reinforce, sweep, train_seed

from openrlhf_cft.data.location import location
from openrlhf_cft.data.provenance import write_json

HERE = Path(__file__).parent
SETTINGS = "settings.txt"  # JSON, but no result


def steps(study: Settings) -> Iterator[Step]:
    """All steps, in order."""
    if isinstance(study, Ladder):
        yield from ladder_steps(study)
        return
    yield Step("questions", partial(questions, study))
    yield Step("base-validation", partial(base, study))
    for part in range(study.parts):
        yield Step(f"annotate-{part}", partial(annotate, study, part))
    yield Step("held-out", partial(held_out, study))
    yield Step("masks", partial(masks, study))
    yield Step("kinds", partial(kinds, study))
    yield Step("rejection", partial(rejection, study))
    for rate in study.rates:
        for arm in study.arms:
            yield Step(f"sweep-{arm.name}-{rate:g}", partial(sweep, study, arm, rate))
    yield Step("test-base", partial(evaluate_test, study, None, 0))
    for seed in range(1, max(study.many_seeds, study.rl_seeds) + 1):
        for arm in study.arms:
            if seed <= seeds_of(study, arm):
                yield Step(f"train-{arm.name}-{seed}", partial(train_seed, study, arm, seed))
                yield Step(f"test-{arm.name}-{seed}", partial(evaluate_test, study, arm, seed))
        for name in RL_ARMS:
            if seed <= study.rl_seeds:  # soon after the training: its checkpoint is still there
                yield Step(f"rl-{name}-{seed}", partial(reinforce, study, name, seed))


def seeds_of(study: Settings, arm: Arm) -> int:
    return study.many_seeds if arm.many else study.few_seeds


def run(study: Settings, minutes: float | None) -> bool:
    """Do the steps that are not done; whether all of them are now."""
    started = time.monotonic()
    study.results.mkdir(parents=True, exist_ok=True)
    claim(study)
    todo = [step for step in steps(study) if not study.result_file(step.name).exists()]
    for number, step in enumerate(todo):
        passed = time.monotonic() - started
        if minutes is not None and passed > 60 * minutes:
            print(f"evidence: {len(todo) - number} steps are left; the same command goes on with {step.name}")
            return False
        eta = f", about {passed / number * (len(todo) - number) / 60:.0f} min left" if number else ""
        print(f"evidence: step {number + 1} of {len(todo)}: {step.name}{eta}", flush=True)
        began = time.monotonic()
        found = step.make()
        write_json(location(study.result_file(step.name)), {**found, "seconds": round(time.monotonic() - began, 1)})
    return True


def claim(study: Settings) -> None:
    """Results of other sizes are of another study.

    Raises:
        SystemExit: names what differs.
    """
    file, now = study.results / SETTINGS, json.loads(json.dumps(study.sizes))
    before = json.loads(file.read_text()) if file.exists() else now
    for name, value in now.items():
        if before.get(name) != value:
            where = f"{study.results} has the results of another study, with --{name} {before.get(name)}"
            raise SystemExit(f"evidence: {where} and not {value}; give another --results and --run_dir")
    write_json(location(file), now)


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--study", choices=["first", "ladder"], default="first", help="ladder: see ladder/steps.py")
    flags.add_argument("--minutes", type=float, default=None, help="start no step after that")
    flags.add_argument("--run_dir", type=Path, default=Path("runs/evidence"))
    flags.add_argument("--results", type=Path, default=HERE / "results")
    flags.add_argument("--model", default=None, help="default: SmolLM2-135M-Instruct")
    flags.add_argument("--train", type=int, default=2600, help="questions")
    flags.add_argument("--validation", type=int, default=240)
    flags.add_argument("--test", type=int, default=440)
    flags.add_argument("--mix", default="wide", help="of examples/make_questions.py")
    flags.add_argument("--length", type=int, default=48, help="tokens of a response, at most")
    flags.add_argument("--samples", type=int, default=8, help="of each test question")
    flags.add_argument(
        "--rates", type=float, nargs="+", default=[1e-5, 3e-5, 1e-4, 3e-4], help="learning rates of the sweep"
    )
    flags.add_argument("--many_seeds", type=int, default=5)
    flags.add_argument("--few_seeds", type=int, default=3)
    flags.add_argument("--rl_seeds", type=int, default=5)
    flags.add_argument("--rl_steps", type=int, default=40, help="of GRPO, from each checkpoint")
    flags.add_argument("--parts", type=int, default=4, help="of the annotation")
    flags.add_argument("--gpus", type=int, default=1, help="processes that train, engines that sample")
    flags.add_argument("--train_flags", type=shlex.split, default=[], help="more flags of train_sft, for all arms")
    return flags


def main() -> int:
    flags = parser()
    kind: type[Settings] = Settings
    if flags.parse_known_args()[0].study == "ladder":
        kind = Ladder
        ladder_flags(flags)
    own = vars(flags.parse_args())
    minutes, _ = own.pop("minutes"), own.pop("study")
    study = kind(**own)
    if not run(study, minutes):
        return 0
    print(json.dumps({"steps": len(list(steps(study))), "results": str(study.results)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
