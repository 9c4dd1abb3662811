"""The study's result files as the tables of docs/evidence.md; no figure is typed by hand.

    python examples/evidence/table.py [--write]

Means are over seeds with Student's 95 % interval, and differences are paired by seed. Beside that is the interval from
resampling the questions (10,000 times), each of whose outcomes is averaged over the seeds. Of reinforcement learning
the mean of the first and of the last quarter of the steps is taken: a single one is noisy.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from arms import ARMS, Arm

from openrlhf_cft.curves import ENTROPY, REWARD
from openrlhf_cft.evaluation.intervals import differences as resampled
from openrlhf_cft.evaluation.metrics import pass_at_k
from openrlhf_cft.evaluation.seeds import mean_over_seeds, mean_text, paired_by_seed

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "evidence.md"
MARKS = "<!-- evidence: made by examples/evidence/table.py -->", "<!-- evidence ends -->"
FIGURES = {
    "greedy accuracy": ("figures", "accuracy"),
    "Pass@1": ("figures", "pass@1"),
    "Pass@8": ("figures", "pass@8"),
    "entropy": ("figures", "entropy"),
    "loss, critical": ("annotated", "critical_nll"),
    "loss, other": ("annotated", "other_nll"),
}
RL_FIGURES = {"accuracy of the samples": REWARD, "entropy": ENTROPY}
RL_PARTS = 4  # of its steps, the first and the last of which are shown
CFT, SFT = "cft3", "sft"
RIVALS = (SFT, "random", "dft", "rejection", "cft2", "entropy", "numbers")
Seeds = dict[int, dict[str, Any]]  # the result of each seed


def by_arm(results: Path) -> dict[str, Seeds]:
    """The test results of every arm that has one."""
    found: dict[str, Seeds] = {}
    for arm in ARMS:
        for file in results.glob(f"test-{arm.name}-*.json"):
            found.setdefault(arm.name, {})[int(file.stem.rsplit("-", 1)[1])] = json.loads(file.read_text())
    return found


def figure(seeds: Seeds, kind: str, name: str) -> dict[int, float]:
    """One figure of every seed that has it."""
    return {seed: result[kind][name] for seed, result in seeds.items() if name in result.get(kind, {})}


def sweep_table(results: Path) -> list[str]:
    """What each learning rate came to: the choice, and whether a best one is at an end of the sweep."""
    found: dict[str, dict[float, str]] = {}
    for arm in ARMS:
        for file in results.glob(f"sweep-{arm.name}-*.json"):
            result = json.loads(file.read_text())
            found.setdefault(arm.title, {})[result["rate"]] = f"{result['figures']['accuracy']:.3f}"
    rates = sorted({rate for of_arm in found.values() for rate in of_arm})
    lines = [f"| validation, greedy accuracy | {' | '.join(f'{rate:g}' for rate in rates)} |"]
    lines.append("|---" * (len(rates) + 1) + "|")
    cells = {title: " | ".join(of_arm.get(rate, "-") for rate in rates) for title, of_arm in found.items()}
    return [*lines, *(f"| {title} | {row} |" for title, row in cells.items())]


def arms_table(results: Path) -> list[str]:
    """A row an arm."""
    found = by_arm(results)
    lines = [f"| | seeds | rate | {' | '.join(FIGURES)} | best step |", "|---" * (len(FIGURES) + 4) + "|"]
    base = results / "test-base.json"
    if base.exists():
        result = {0: json.loads(base.read_text())}
        cells = [cell(list(figure(result, *place).values())) for place in FIGURES.values()]
        lines.append(f"| before training | | | {' | '.join(cells)} | |")
    for arm in ARMS:
        if arm.name in found:
            lines.append(arm_row(results, arm, found[arm.name]))
    return lines


def arm_row(results: Path, arm: Arm, seeds: Seeds) -> str:
    cells = [cell(list(figure(seeds, *place).values())) for place in FIGURES.values()]
    trained = [json.loads((results / f"train-{arm.name}-{seed}.json").read_text()) for seed in sorted(seeds)]
    best = cell([float(result["step_of_best"]) for result in trained], digits=0)
    return f"| {arm.title} | {len(seeds)} | {trained[0]['rate']:g} | {' | '.join(cells)} | {best} |"


def cell(values: list[float], digits: int = 3) -> str:
    return mean_text(mean_over_seeds(values), digits) if values else "-"


def pairs_table(results: Path) -> list[str]:
    """CFT against each other arm."""
    found = by_arm(results)
    kinds: dict[str, Callable[[dict[str, Any]], list[float]]] = {
        "greedy accuracy": lambda result: [float(bit) for bit in result["greedy"]],
        "Pass@1": lambda result: passes(result, 1),
        "Pass@8": lambda result: passes(result, 8),
    }
    lines = [f"| | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    titles = {arm.name: arm.title for arm in ARMS}
    for first, second in ((CFT, rival) for rival in RIVALS):
        common = sorted(found.get(first, {}).keys() & found.get(second, {}).keys())
        if common:
            cells = [
                pair(*({seed: read(found[arm][seed]) for seed in common} for arm in (first, second)))
                for read in kinds.values()
            ]
            lines.append(f"| {titles[first]} less {titles[second]}, {len(common)} seeds | {' | '.join(cells)} |")
    return lines if len(lines) > 2 else []


def passes(result: dict[str, Any], k: int) -> list[float]:
    """(Q,) Pass@k of every question; empty where there are fewer samples than k."""
    found = [pass_at_k(result["samples"], correct, k) for correct in result["correct"]]
    return [value for value in found if value is not None]


def pair(left: dict[int, list[float]], right: dict[int, list[float]]) -> str:
    """Mean difference: over seeds, and in brackets from resampled questions. A dash where it was not measured."""
    if not all([*left.values(), *right.values()]):
        return "-"
    means = [{seed: float(np.mean(values)) for seed, values in side.items()} for side in (right, left)]
    over_seeds = mean_over_seeds(paired_by_seed(*means))
    averaged = [np.mean([side[seed] for seed in sorted(side)], axis=0) for side in (right, left)]
    second, first = ({"it": np.stack([values, np.ones_like(values)], axis=1)} for values in averaged)
    over_questions = resampled(second, first, seed=0)["it"]
    return f"{mean_text(over_seeds)} [{over_questions.low:+.3f}, {over_questions.high:+.3f}]"


def about(results: Path, total: int) -> list[str]:
    """How far the study is, and what it was made of."""
    done = len(list(results.glob("*.json")))
    lines = [f"{done} of {total} steps are done{'.' if done == total else ': the study is not finished.'}"]
    masks = results / "masks.json"
    if masks.exists():
        found = json.loads(masks.read_text())
        shares = ", ".join(f"{arm.title} {found['share'][arm.name]:.1%}" for arm in ARMS if arm.name in found["share"])
        lines += ["", f"{found['rows']} annotated responses, {found['tokens']} tokens. Trained of them: {shares}."]
    return lines + costs(results)


def costs(results: Path) -> list[str]:
    """What the masks cost, and what rejection sampling gets for the same."""
    parts = [json.loads(file.read_text()) for file in sorted(results.glob("annotate-*.json"))]
    if not parts:
        return []
    tokens, seconds = (sum(part[name] for part in parts) for name in ("rollout_tokens", "seconds"))
    lines = ["", f"The masks cost {tokens} decoded tokens ({seconds / 60:.0f} min with the greedy responses)."]
    file = results / "rejection.json"
    if file.exists():
        found = json.loads(file.read_text())
        lines[-1] += f" For as many, rejection sampling adds {found['rows'] - found['greedy']} correct responses."
    return lines


def kinds_table(results: Path) -> list[str]:
    """Which tokens are critical."""
    file = results / "kinds.json"
    if not file.exists():
        return []
    kinds = json.loads(file.read_text())["by_kind"]
    lines = ["| kind of token | of all tokens | critical of these |", "|---|---|---|"]
    total = sum(kind["tokens"] for kind in kinds.values())
    for name, kind in kinds.items():
        if kind["tokens"]:
            lines.append(f"| {name} | {kind['tokens'] / total:.1%} | {kind['critical_tokens'] / kind['tokens']:.1%} |")
    return lines


def rl_table(results: Path) -> list[str]:
    """GRPO from SFT and from CFT: how it begins and ends, and the difference, paired by seed."""
    titles = {arm.name: arm.title for arm in ARMS}
    found = {name: rl_figures(results, name) for name in (SFT, CFT)}
    names = [f"{name}, {part} quarter" for name in RL_FIGURES for part in ("first", "last")]
    lines = [f"| GRPO from | seeds | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for arm, figures in found.items():
        if figures:
            cells = [cell([values[at] for values in figures.values()]) for at in range(len(names))]
            lines.append(f"| {titles[arm]} | {len(figures)} | {' | '.join(cells)} |")
    common = found[CFT].keys() & found[SFT].keys()
    if common:
        sides = [[{seed: found[arm][seed][at] for seed in common} for arm in (SFT, CFT)] for at in range(len(names))]
        cells = [cell(paired_by_seed(*side)) for side in sides]
        lines.append(f"| {titles[CFT]} less {titles[SFT]} | {len(common)} | {' | '.join(cells)} |")
    return lines


def rl_figures(results: Path, arm: str) -> dict[int, list[float]]:
    """Of every seed each of `RL_FIGURES` in the first and in the last quarter of the steps."""
    found = {}
    for file in results.glob(f"rl-{arm}-*.json"):
        curves = json.loads(file.read_text())
        values = [curves[tag]["values"] for tag in RL_FIGURES.values()]
        parts = [part for curve in values for part in ends(curve)]
        found[int(file.stem.rsplit("-", 1)[1])] = [float(np.mean(part)) for part in parts]
    return found


def ends(curve: list[float]) -> tuple[list[float], list[float]]:
    """The first and the last quarter, of one step at least."""
    steps = max(1, len(curve) // RL_PARTS)
    return curve[:steps], curve[-steps:]


def document(results: Path, total: int) -> str:
    """All tables that there is something for."""
    tables = (sweep_table, arms_table, pairs_table, rl_table, kinds_table)
    parts = [about(results, total), *(table(results) for table in tables)]
    return "\n\n".join("\n".join(part) for part in parts if len(part) > 2 or part is parts[0]) + "\n"


def in_page(text: str, tables: str, marks: tuple[str, str] = MARKS) -> str:
    """The page with these tables between the marks.

    Raises:
        ValueError: it has no marks.
    """
    begin, end = marks
    if begin not in text or end not in text:
        raise ValueError(f"the page has no {begin!r} and {end!r}")
    return re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: f"{begin}\n{tables}{end}", text, flags=re.DOTALL)


def main() -> int:
    from common import Settings
    from study import parser, steps

    own = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    own.add_argument("--results", type=Path, default=HERE / "results")
    own.add_argument("--write", action="store_true", help="into docs/evidence.md, instead of printing")
    args = own.parse_args()
    settings = vars(parser().parse_args([]))
    for name in ("minutes", "study"):
        settings.pop(name)
    tables = document(args.results, len(list(steps(Settings(**settings)))))
    if args.write:
        PAGE.write_text(in_page(PAGE.read_text(), tables))
    else:
        sys.stdout.write(tables)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
