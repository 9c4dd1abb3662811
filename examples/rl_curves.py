r"""The end of `rl_start.sh`: entropy and accuracy of every arm over the steps, as a figure and as `report.json`.

python examples/rl_curves.py --output_dir runs/grpo \
  --runs sft=runs/grpo/sft-42/tensorboard/grpo cft=runs/grpo/cft-42/tensorboard/grpo

Each seed is a thin line, and a running mean over it a thick one. An arm may be named several times, once a seed and in
the same order of seeds. Then the thick line is over the mean of the seeds, with their 95 % interval. The difference of
two arms is reported, paired by seed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from openrlhf_cft.curves import ENTROPY, REWARD, Curve, read_curves
from openrlhf_cft.data.location import location
from openrlhf_cft.data.provenance import versions, write_json
from openrlhf_cft.evaluation.seeds import mean_over_seeds, paired_by_seed

PANELS = {ENTROPY: "entropy of the policy, nats a token", REWARD: "share of sampled responses that are correct"}
LAST_STEPS = 5  # whose mean reward stands for the end: that of one step is noisy
WINDOW = 5  # steps of the running mean, at most
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


def aligned(seeds: list[dict[str, Curve]], tag: str) -> tuple[list[int], list[list[float]]]:
    """The steps that all seeds have, and at each the values of the seeds."""
    tables = [dict(zip(seed[tag].steps, seed[tag].values, strict=True)) for seed in seeds]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    return steps, [[table[step] for table in tables] for step in steps]


def draw(arms: Arms, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(10, 4), layout="constrained")
    for panel, (tag, label) in zip(panels, PANELS.items(), strict=True):
        for name, seeds in arms.items():
            colour = COLOURS.get(name)
            steps, values = aligned(seeds, tag)
            found = smoothed(values)
            means, margins = [each["mean"] for each in found], [each.get("margin", 0.0) for each in found]
            count = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
            (drawn,) = panel.plot(steps, means, label=f"GRPO from {name.upper()}, {count}", color=colour)
            low, high = ([m + sign * margin for m, margin in zip(means, margins, strict=True)] for sign in (-1, 1))
            panel.fill_between(steps, low, high, color=drawn.get_color(), alpha=0.15, linewidth=0)
            for seed in seeds:
                panel.plot(seed[tag].steps, seed[tag].values, color=drawn.get_color(), alpha=0.3, linewidth=0.7)
        panel.set(xlabel="step", title=label, ylim=(0, None))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
        panel.legend()
    figure.supxlabel(f"thick: mean over the last {WINDOW} steps; thin: each step of each seed", fontsize=8)
    figure.savefig(file, dpi=150)


def smoothed(values: list[list[float]]) -> list[dict[str, float]]:
    """The mean over the seeds, with its interval, of each seed's running mean. `values` are by step, then by seed."""
    seeds = (running(list(seed)) for seed in zip(*values, strict=True))
    return [mean_over_seeds(list(at_step)) for at_step in zip(*seeds, strict=True)]


def running(values: list[float]) -> list[float]:
    """The mean of each value and those before it, `WINDOW` of them at most."""
    return [fmean(values[max(0, i + 1 - WINDOW) : i + 1]) for i in range(len(values))]


def summary(seeds: list[dict[str, Curve]]) -> dict[str, Any]:
    """Means over the seeds; where there are several also half the width of their 95 % intervals."""
    figures = {name: mean_over_seeds(values) for name, values in by_seed(seeds).items()}
    steps, reward = aligned(seeds, REWARD)
    return {
        "seeds": len(seeds),
        "steps": len(steps),
        **{name: round(found["mean"], 4) for name, found in figures.items()},
        **{f"{name}_margin": round(found["margin"], 4) for name, found in figures.items() if "margin" in found},
        "reward": [round(fmean(values), 4) for values in reward],
    }


def by_seed(seeds: list[dict[str, Curve]]) -> dict[str, list[float]]:
    """Entropy at the start and at the end, and the reward of the last steps, of each seed."""
    _, entropy = aligned(seeds, ENTROPY)
    _, reward = aligned(seeds, REWARD)
    last = [fmean(values) for values in zip(*reward[-LAST_STEPS:], strict=True)]
    return {"entropy_start": entropy[0], "entropy_end": entropy[-1], "reward_last": last}


def compared(arms: Arms) -> dict[str, Any]:
    """Every later arm minus the first, at the seeds that both have."""
    (first, base), *others = ((name, by_seed(seeds)) for name, seeds in arms.items())
    return {
        f"{name} - {first}": {
            key: mean_over_seeds(paired_by_seed(dict(enumerate(base[key])), dict(enumerate(values))))
            for key, values in figures.items()
        }
        for name, figures in others
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
    report = {"arms": result, "differences": compared(arms), "curves": curves}
    report |= {"seconds": args.seconds, "versions": versions()}
    write_json(location(args.output_dir / "report.json"), report)
    print(f"entropy and accuracy of both: {args.output_dir}/rl_start.png, report.json beside it")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
