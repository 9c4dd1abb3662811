r"""The end of `rl_start.sh`: entropy and accuracy of every arm over the steps, as a figure and as `report.json`.

python examples/rl_curves.py --output_dir runs/grpo \
  --runs sft=runs/grpo/sft-42/tensorboard/grpo cft=runs/grpo/cft-42/tensorboard/grpo

An arm may be named several times, once a seed: then its mean is drawn, and each seed as a thin line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from openrlhf_cft.annotate.workdir import versions, write_json
from openrlhf_cft.curves import ENTROPY, REWARD, Curve, read_curves
from openrlhf_cft.storage import place

PANELS = {ENTROPY: "entropy of the policy, nats a token", REWARD: "share of sampled responses that are correct"}
COLOURS = {"sft": "tab:orange", "cft": "tab:blue"}
Arms = dict[str, list[dict[str, Curve]]]  # by name; one a seed


def read_arms(runs: list[str]) -> Arms:
    """The curves of every arm; all seeds of it cut to the steps that each of them has."""
    arms: Arms = {}
    for run in runs:
        name, _, folder = run.partition("=")
        curves = read_curves(folder)
        missing = [tag for tag in PANELS if tag not in curves]
        if missing:
            raise ValueError(f"{folder!r} has no {missing[0]!r}; train with --actor.entropy_coef 0.0")
        arms.setdefault(name, []).append({tag: curves[tag] for tag in PANELS})
    return arms


def mean(seeds: list[dict[str, Curve]], tag: str) -> Curve:
    """The mean over the seeds, at the steps that all of them have."""
    tables = [dict(zip(seed[tag].steps, seed[tag].values, strict=True)) for seed in seeds]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    return Curve(steps, [sum(table[step] for table in tables) / len(tables) for step in steps])


def draw(arms: Arms, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(10, 4), layout="constrained")
    for panel, (tag, label) in zip(panels, PANELS.items(), strict=True):
        for name, seeds in arms.items():
            colour = COLOURS.get(name)
            line = mean(seeds, tag)
            (drawn,) = panel.plot(line.steps, line.values, label=f"GRPO from {name.upper()}", color=colour)
            for seed in seeds if len(seeds) > 1 else []:
                panel.plot(seed[tag].steps, seed[tag].values, color=drawn.get_color(), alpha=0.3, linewidth=0.7)
        panel.set(xlabel="step", title=label, ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend()
    figure.savefig(file, dpi=150)


def summary(seeds: list[dict[str, Curve]]) -> dict[str, Any]:
    entropy, reward = mean(seeds, ENTROPY), mean(seeds, REWARD)
    return {
        "seeds": len(seeds),
        "steps": len(entropy.steps),
        "entropy_start": round(entropy.values[0], 4),
        "entropy_end": round(entropy.values[-1], 4),
        "reward": [round(value, 4) for value in reward.values],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", required=True, metavar="ARM=FOLDER")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=None, help="wall time of the whole run so far")
    args = parser.parse_args()

    arms = read_arms(args.runs)
    draw(arms, args.output_dir / "rl_start.png")
    result = {name: summary(seeds) for name, seeds in arms.items()}
    curves = {
        name: [{tag: vars(curve) for tag, curve in seed.items()} for seed in seeds] for name, seeds in arms.items()
    }
    report = {"arms": result, "curves": curves, "seconds": args.seconds, "versions": versions()}
    write_json(place(args.output_dir / "report.json"), report)
    print(f"entropy and accuracy of both: {args.output_dir}/rl_start.png, report.json beside it")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
