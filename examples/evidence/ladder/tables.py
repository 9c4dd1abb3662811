"""The second study's result files as tables and three figures of docs/ladder.md; no figure is typed by hand.

    python examples/evidence/ladder/tables.py [--results DIR] [--write]

Means have Student's interval over seeds. Intervals of differences are over seeds and questions: see `paired`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from arms import Arm  # noqa: E402
from ladder.arms import ALL_ROWS, SAMPLED_ROWS  # noqa: E402
from ladder.base import show  # noqa: E402
from ladder.rates import STRATA  # noqa: E402
from table import Seeds, cell, ends, in_page, passes  # noqa: E402
from training import RL_ARMS  # noqa: E402

from openrlhf_cft.curves import ENTROPY, REWARD  # noqa: E402
from openrlhf_cft.evaluation.seeds import STUDENT_95, mean_over_seeds  # noqa: E402

PAGE = HERE.parents[2] / "docs" / "ladder.md"
MARKS = "<!-- made by examples/evidence/ladder/tables.py -->", "<!-- end of the tables -->"
Read = Callable[[dict[str, Any]], float | None]
Values = Callable[[dict[str, Any]], list[float]]
KS = (1, 4, 16)
TEST, DRAWN = "test", "drawn"  # the steps that answer test questions greedily, and that sample them


def figure(kind: str, name: str) -> Read:
    """A figure of a result, where it has one."""
    return lambda result: result.get(kind, {}).get(name)


COLUMNS: dict[str, tuple[str, Read]] = {  # by name: steps that have it, and how it is read
    "greedy accuracy": (TEST, figure("figures", "accuracy")),
    **{f"Pass@{k}": (DRAWN, figure("figures", f"pass@{k}")) for k in KS},
    "entropy, critical tokens": (TEST, figure("annotated", "critical_entropy")),
    "entropy, other tokens": (TEST, figure("annotated", "other_entropy")),
    "loss, critical tokens": (TEST, figure("annotated", "critical_nll")),
    "loss, other tokens": (TEST, figure("annotated", "other_nll")),
    "distinct texts": (DRAWN, figure("phrasings", "distinct")),
    "other questions": (TEST, figure("other", "accuracy")),
}
SWEPT = (figure("figures", "accuracy"), figure("annotated", "other_entropy"))
PAIRED: dict[str, tuple[str, Values]] = {
    "greedy accuracy": (TEST, lambda result: [float(bit) for bit in result["greedy"]]),
    "Pass@1": (DRAWN, lambda result: passes(result, 1)),
    "Pass@16": (DRAWN, lambda result: passes(result, 16)),
}
PAIRS = [("cft3", arm.name) for arm in ALL_ROWS if arm.name != "cft3"]
PAIRS += [("few-cft3", "few-sft"), ("few-drop", "few-sft"), ("few-drop", "few-cft3"), ("few-drop", "few-random")]
BASE = "base"
ARMS: dict[str, Arm] = {arm.name: arm for arm in ALL_ROWS + SAMPLED_ROWS}


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def header(*cells: str) -> list[str]:
    return [row(*cells), "|---" * len(cells) + "|"]


def mean(values: Iterable[float | None]) -> str:
    """Over seeds, of those that have a value; a dash where none has."""
    return cell([value for value in values if value is not None])


def title(arm: str) -> str:
    return "before training" if arm == BASE else ARMS[arm].title


def less(first: str, second: str) -> str:
    return f"{ARMS[first].title} less {ARMS[second].title}"


def read(file: Path) -> dict[str, Any] | None:
    return dict(json.loads(file.read_text())) if file.exists() else None


def seeds_of(results: Path, kind: str, arm: str) -> Seeds:
    """The results of an arm, by seed; of the base, which has none, under 0."""
    if arm == BASE:
        return {0: found} if (found := read(results / f"{kind}-{BASE}.json")) else {}
    files = sorted(results.glob(f"{kind}-{arm}-[0-9]*.json"))
    return {int(file.stem.rsplit("-", 1)[1]): json.loads(file.read_text()) for file in files}


def gate_table(results: Path) -> list[str]:
    found = read(results / "gate.json")
    return show(found).splitlines() if found else []


def sweep_of(results: Path, arm: str) -> dict[float, list[dict[str, Any]]]:
    """Validation results of an arm by rate, one a seed."""
    found: dict[float, list[dict[str, Any]]] = {}
    for name, run in (read(results / f"sweep-{arm}.json") or {"runs": {}})["runs"].items():
        found.setdefault(float(name.rpartition("-")[0]), []).append(run)
    return dict(sorted(found.items()))


def sweep_table(results: Path) -> list[str]:
    """Greedy accuracy on validation questions and entropy on held-out responses, at every rate."""
    swept = {name: found for name in ARMS if (found := sweep_of(results, name))}
    rates = sorted({rate for found in swept.values() for rate in found})
    lines = header("validation: accuracy; entropy on other tokens", *(f"{rate:g}" for rate in rates))
    for name, found in swept.items():
        cells = ["; ".join(mean(map(of, found[rate])) for of in SWEPT) if rate in found else "-" for rate in rates]
        lines.append(row(ARMS[name].title, *cells))
    return lines if swept else []


def arms_table(results: Path) -> list[str]:
    """A row an arm, at its best rate."""
    lines = header("", "seeds", "rate", *COLUMNS)
    for name in (BASE, *ARMS):
        found = {kind: seeds_of(results, kind, name) for kind in (TEST, DRAWN)}
        if found[TEST]:
            rate = next(iter(found[TEST].values()))["rate"]
            about = [str(len(found[TEST])), f"{rate:g}"] if rate else ["", ""]
            lines.append(
                row(title(name), *about, *(mean(map(of, found[kind].values())) for kind, of in COLUMNS.values()))
            )
    return lines if len(lines) > 2 else []


def pairs_table(results: Path) -> list[str]:
    """Differences, paired by seed."""
    lines = header("", "seeds", *PAIRED)
    for first, second in PAIRS:
        common = seeds_of(results, TEST, first).keys() & seeds_of(results, TEST, second).keys()
        if common:
            arms = [[seeds_of(results, kind, arm) for arm in (first, second)] for kind, _ in PAIRED.values()]
            cells = [paired(left, right, of) for (left, right), (_, of) in zip(arms, PAIRED.values(), strict=True)]
            lines.append(row(less(first, second), str(len(common)), *cells))
    cft, sft = (seeds_of(results, f"rl-{DRAWN}", arm) for arm in ("cft3", "sft"))
    if common := cft.keys() & sft.keys():
        cells = [paired(cft, sft, of) if kind == DRAWN else "-" for kind, of in PAIRED.values()]
        lines.append(row(f"after GRPO: {less('cft3', 'sft')}", str(len(common)), *cells))
    return lines if len(lines) > 2 else []


def paired(left: Seeds, right: Seeds, of: Values) -> str:
    """The mean difference of two arms at the seeds that both have, and its 95 % interval over seeds and questions.

    Both variances are added, and the quantile is Student's for the seeds alone: rather too wide than too narrow.
    """
    common = sorted(left.keys() & right.keys())
    differences = np.array([np.subtract(of(left[seed]), of(right[seed])) for seed in common])  # (seeds, questions)
    if not differences.size:
        return "-"
    over_seeds = mean_over_seeds([float(seed.mean()) for seed in differences])
    if "margin" not in over_seeds:
        return cell([over_seeds["mean"]])
    per_question = differences.mean(axis=0)
    of_seeds, of_questions = (
        np.std(found, ddof=1) ** 2 / len(found) for found in (differences.mean(axis=1), per_question)
    )
    quantile = STUDENT_95[len(common) - 2]
    return f"{over_seeds['mean']:.3f} ± {quantile * float(np.sqrt(of_seeds + of_questions)):.3f}"


def stratum(steps: int) -> str:
    return next(f"{low} to {high}" for low, high in STRATA if low <= steps <= high)


def steps_table(results: Path) -> list[str]:
    """Greedy accuracy on the test questions by number of steps."""
    asked = read(results / "questions.json")
    arms = {name: seeds for name in (BASE, *ARMS) if (seeds := seeds_of(results, TEST, name))}
    if not asked or not arms:
        return []
    strata, names = [stratum(int(digit)) for digit in asked["test_steps"]], [stratum(low) for low, _ in STRATA]
    lines = header("greedy accuracy by steps", *names)
    for arm, seeds in arms.items():
        cells = []
        for name in names:
            own = [at for at, found in enumerate(strata) if found == name]
            right = [sum(result["greedy"][at] == "1" for at in own) for result in seeds.values()]
            cells.append(mean(count / len(own) if own else None for count in right))
        lines.append(row(title(arm), *cells))
    return lines


def horizon_table(results: Path) -> list[str]:
    """One greedy rollout against success rates, by number of steps."""
    found = read(results / "horizon.json")
    if not found:
        return []
    names = ["steps", "responses", "alternatives", "verdict and rate agree", "correct only greedily", "only by rate"]
    names += ["critical, greedy", "critical, by rate", "both", "rate of the response's own tokens"]
    lines = header(*names)
    for name, part in found["by_steps"].items():
        verdicts, critical = part["verdicts"], part["critical"]
        counts = [part["rows"], verdicts["alternatives"], f"{verdicts['agreement']:.1%}"]
        counts += [verdicts["only_greedy_correct"], verdicts["only_sampled_correct"]]
        counts += [f"{critical[kind] / part['tokens']:.1%}" for kind in ("greedy", "sampled", "both")]
        lines.append(row(name, *map(str, counts), mean([part["own_rate"]])))
    return lines


def runs(results: Path, arm: str) -> Seeds:
    """The last part of every GRPO run that is done."""
    last = (read(results / "settings.txt") or {"rl_parts": 1})["rl_parts"] - 1
    files = {int(file.stem.split("-")[2]): file for file in sorted(results.glob(f"rl-{arm}-*-{last}.json"))}
    return {seed: result for seed, file in files.items() if (result := read(file))}


def rl_figures(results: Path, arm: str, seed: int, run: dict[str, Any]) -> list[float | None]:
    """A run's accuracy and entropy at its beginning and end, and Pass@1 and Pass@16 before and after it."""
    parts = [part for tag in (REWARD, ENTROPY) for part in ends(run["curves"][tag]["values"])]
    before, after = (seeds_of(results, kind, arm).get(seed, {}) for kind in (DRAWN, f"rl-{DRAWN}"))
    passed = [figure("figures", f"pass@{k}")(side) for k in (1, 16) for side in (before, after)]
    return [*(sum(part) / len(part) for part in parts), *passed]


def rl_table(results: Path) -> list[str]:
    """GRPO from both starts, and the difference."""
    names = [f"{what}, {part} quarter" for what in ("accuracy", "entropy") for part in ("first", "last")]
    names += [f"Pass@{k} {when}" for k in (1, 16) for when in ("before", "after")]
    lines = header("GRPO from", "seeds", *names)
    found = {
        arm: {seed: rl_figures(results, arm, seed, run) for seed, run in runs(results, arm).items()} for arm in RL_ARMS
    }
    for arm, seeds in found.items():
        if seeds:
            lines.append(row(ARMS[arm].title, str(len(seeds)), *map(mean, zip(*seeds.values(), strict=True))))
    first, second = (found[arm] for arm in RL_ARMS)
    if common := sorted(first.keys() & second.keys()):
        pairs = [list(map(difference, first[seed], second[seed])) for seed in common]
        lines.append(row(less(RL_ARMS[1], RL_ARMS[0]), str(len(common)), *map(mean, zip(*pairs, strict=True))))
    return lines if len(lines) > 2 else []


def difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else second - first


def document(results: Path) -> str:
    """All tables that there is something for."""
    tables = (gate_table, sweep_table, arms_table, pairs_table, steps_table, horizon_table, rl_table)
    return "\n\n".join("\n".join(found) for made in tables if (found := made(results))) + "\n"


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--results", type=Path, default=HERE / "results")
    flags.add_argument("--write", action="store_true", help="into docs/ladder.md, instead of printing")
    args = flags.parse_args()
    if args.write:
        PAGE.write_text(in_page(PAGE.read_text(), document(args.results), MARKS))
    else:
        sys.stdout.write(document(args.results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
