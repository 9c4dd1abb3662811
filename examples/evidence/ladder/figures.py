"""The second study's three figures: accuracy against entropy over rates, Pass@k, and GRPO.

python examples/evidence/ladder/figures.py [--results DIR] [--output_dir docs]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from ladder.arms import ALL_ROWS  # noqa: E402
from ladder.tables import ARMS, BASE, DRAWN, SWEPT, runs, seeds_of, sweep_of  # noqa: E402
from training import RL_ARMS  # noqa: E402

from openrlhf_cft.curves import ENTROPY, REWARD  # noqa: E402

KS = (1, 2, 4, 8, 16)
PANELS = {REWARD: "share of sampled responses that are correct", ENTROPY: "entropy, nats a token"}


def new_panels(count: int) -> tuple[Any, list[Any]]:
    """A figure and its panels. The file of the same results is the same to the byte."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "ladder"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, count, figsize=(6 * count, 4.5), layout="constrained", squeeze=False)
    return figure, list(panels[0])


def entropy_figure(results: Path) -> Any | None:
    """Every arm's way through the rates, on validation questions: no choice of a rate hides the trade."""
    figure, (panel,) = new_panels(1)
    for arm in ALL_ROWS:
        swept = sweep_of(results, arm.name)
        points = [
            [fmean(value for value in map(of, seeds) if value is not None) for of in reversed(SWEPT)]
            for seeds in swept.values()
        ]
        if points:
            (line,) = panel.plot(*zip(*points, strict=True), marker="o", label=arm.title)
            for rate, point in zip(swept, points, strict=True):
                panel.annotate(f"{rate:g}", point, fontsize=7, color=line.get_color())
    panel.set(
        xlabel="entropy on tokens that are not critical, nats",
        ylabel="greedy accuracy, validation",
        title="every learning rate",
    )
    return finished(figure, [panel])


def passes_figure(results: Path) -> Any | None:
    """Pass@k of every arm at its best rate, and of the base, on test questions."""
    figure, (panel,) = new_panels(1)
    arms = {BASE: "before training"} | {arm.name: arm.title for arm in ALL_ROWS}
    for name, title in arms.items():
        found = list(seeds_of(results, DRAWN, name).values())
        values = [[one["figures"].get(f"pass@{k}") for one in found] for k in KS]
        if found and all(value is not None for at_k in values for value in at_k):
            panel.plot(KS, [fmean(at_k) for at_k in values], marker="o", label=title)
    panel.set_xscale("log", base=2)
    panel.set(xlabel="k", ylabel="Pass@k, test", title="mean over seeds", xticks=KS, xticklabels=KS)
    return finished(figure, [panel])


def grpo_figure(results: Path) -> Any | None:
    """GRPO from both starts: thin lines are seeds, thick ones their mean."""
    figure, panels = new_panels(len(PANELS))
    for arm, colour in zip(RL_ARMS, ("tab:orange", "tab:blue"), strict=True):
        found = list(runs(results, arm).values())
        for panel, (tag, label) in zip(panels, PANELS.items(), strict=True):
            values = [run["curves"][tag]["values"] for run in found]
            for one in values:
                panel.plot(range(1, len(one) + 1), one, color=colour, alpha=0.25, linewidth=0.7)
            if values:
                means = [fmean(at_step) for at_step in zip(*values, strict=False)]
                panel.plot(range(1, len(means) + 1), means, color=colour, linewidth=2, label=ARMS[arm].title)
            panel.set(xlabel="step of GRPO", title=label)
    return finished(figure, panels)


def finished(figure: Any, panels: list[Any]) -> Any | None:
    """The figure; None where nothing is drawn."""
    if not any(panel.lines for panel in panels):
        return None
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    return figure


FIGURES: dict[str, Callable[[Path], Any | None]] = {
    "ladder-entropy": entropy_figure,
    "ladder-passes": passes_figure,
    "ladder-grpo": grpo_figure,
}


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--results", type=Path, default=HERE / "results")
    flags.add_argument("--output_dir", type=Path, default=HERE.parents[2] / "docs")
    args = flags.parse_args()
    for name, make in FIGURES.items():
        figure = make(args.results)
        if figure is not None:
            figure.savefig(args.output_dir / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
