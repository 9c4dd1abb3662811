"""The second study's tables say what its results say."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ladder_settings import ladder, study

from ladder import figures, tables  # isort: skip
from ladder.base import BOUNDS, passed  # isort: skip

QUESTIONS, DRAWN, SAMPLES = 30, 10, 16


def write(folder: Path, name: str, found: dict[str, Any]) -> None:
    (folder / f"{name}.json").write_text(json.dumps(found))


def rows_of(lines: list[str]) -> dict[str, list[str]]:
    """The cells of every row, by the first one."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    return {row[0]: row[1:] for row in cells}


def made_up(chance: random.Random, right: float) -> dict[str, dict[str, Any]]:
    """The results of a seed, by the step that they are of."""
    greedy = "".join(str(int(chance.random() < right)) for _ in range(QUESTIONS))
    correct = [sum(chance.random() < right for _ in range(SAMPLES)) for _ in range(DRAWN)]
    figures = {f"pass@{k}": sum(correct) / SAMPLES / DRAWN if k == 1 else 0.9 for k in (1, 4, 16)}
    entropies = {"critical_entropy": 0.1, "other_entropy": 0.2}
    accuracy = {"accuracy": greedy.count("1") / QUESTIONS}
    test = {"rate": 1e-4, "figures": accuracy, "annotated": entropies, "greedy": greedy}
    phrasings = {"questions": 3, "distinct": 0.75}
    return {
        "test": test,
        "drawn": {"figures": figures, "samples": SAMPLES, "correct": correct, "phrasings": phrasings},
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The test results of two arms, three seeds each, and of the base."""
    chance = random.Random(0)
    for arm, right in (("sft", 0.4), ("cft3", 0.6)):
        for seed in (1, 2, 3):
            for kind, found in made_up(chance, right).items():
                write(tmp_path, f"{kind}-{arm}-{seed}", found)
    write(tmp_path, "test-base", {**made_up(chance, 0.2)["test"], "rate": None})
    return tmp_path


def test_an_arm_has_a_row_and_cft_is_paired_with_it(results: Path) -> None:
    found = {arm: tables.seeds_of(results, "test", arm) for arm in ("sft", "cft3", "few-cft3", "base")}
    assert {arm: len(seeds) for arm, seeds in found.items()} == {"sft": 3, "cft3": 3, "few-cft3": 0, "base": 1}
    rows = rows_of(tables.arms_table(results))
    accuracy = {arm: [seed["figures"]["accuracy"] for seed in found[arm].values()] for arm in ("sft", "cft3")}
    assert rows["SFT"][:2] == ["3", "0.0001"] and rows["SFT"][2].startswith(f"{np.mean(accuracy['sft']):.3f} ±")
    assert rows["SFT"][5:7] == ["0.900 ± 0.000", "0.100 ± 0.000"] and rows["SFT"][-3:] == ["-", "0.750 ± 0.000", "-"]
    assert rows["before training"][:2] == ["", ""] and "±" not in rows["before training"][2]
    ((seeds, *cells),) = rows_of(tables.pairs_table(results)).values()
    differences = np.subtract(accuracy["cft3"], accuracy["sft"])
    assert seeds == "3" and cells[0].startswith(f"{np.mean(differences):.3f} ± ") and "±" in cells[1]


def test_a_difference_is_uncertain_by_its_seeds_and_its_questions() -> None:
    """As computed by hand: the wider where both vary."""
    left = {1: [1.0, 1.0, 0.0, 1.0], 2: [1.0, 0.0, 0.0, 1.0]}
    right = {1: [0.0, 0.0, 0.0, 0.0], 2: [0.0, 0.0, 0.0, 0.0]}
    sides = [{seed: {"bits": bits} for seed, bits in side.items()} for side in (left, right)]
    of_seeds = ((0.75 - 0.625) ** 2 + (0.5 - 0.625) ** 2) / 1 / 2
    of_questions = sum((value - 0.625) ** 2 for value in (1.0, 0.5, 0.0, 1.0)) / 3 / 4
    margin = 12.706 * (of_seeds + of_questions) ** 0.5
    assert tables.paired(*sides, lambda result: result["bits"]) == f"0.625 ± {margin:.3f}"
    assert tables.paired({1: sides[0][1]}, sides[1], lambda result: result["bits"]) == "0.750"
    assert tables.paired({}, sides[1], lambda result: result["bits"]) == "-"


def test_the_sweep_has_accuracy_and_entropy(tmp_path: Path) -> None:
    runs = {f"3e-05-{seed}": accuracy for seed, accuracy in enumerate((0.25, 0.5, 0.75), 1)}
    for arm, found in (("cft3", {**runs, "0.0003-1": 0.125}), ("few-cft3", runs)):
        figures = {
            name: {"figures": {"accuracy": value}, "annotated": {"other_entropy": 0.5}}
            for name, value in found.items()
        }
        write(tmp_path, f"sweep-{arm}", {"runs": figures})
    rows = rows_of(tables.sweep_table(tmp_path))
    assert rows["CFT, Strict-3"] == ["0.500 ± 0.621; 0.500 ± 0.000", "0.125; 0.500"]
    assert rows["few rows: CFT, Strict-3"][1] == "-"


def test_accuracy_by_steps_is_that_of_the_questions(tmp_path: Path) -> None:
    sizes = ladder(tmp_path)
    sizes.results.mkdir()
    write(sizes.results, "questions", next(study.steps(sizes)).make())
    asked = {row["id"]: row["steps"] for row in map(json.loads, sizes.questions("test").open())}
    greedy = "".join(str(int(asked[row_id] <= 4)) for row_id in sorted(asked))
    write(sizes.results, "test-sft-1", {"greedy": greedy})
    (cells,) = rows_of(tables.steps_table(sizes.results)).values()
    of_four = sum(steps == 4 for steps in asked.values()) / sum(steps in (4, 5) for steps in asked.values())
    assert cells == ["1.000", f"{of_four:.3f}", "0.000"]


def test_long_horizons_and_the_gate(tmp_path: Path) -> None:
    values: dict[str, float | None] = {name: bound for name, _, bound in BOUNDS} | {"greedy accuracy": 0.2}
    write(tmp_path, "gate", {"values": values, "passed": list(passed(values))})
    verdicts = {"alternatives": 40, "agreement": 0.75, "only_greedy_correct": 7, "only_sampled_correct": 3}
    critical = {"greedy": 10, "sampled": 12, "both": 8}
    part = {"rows": 4, "tokens": 100, "own_rate": 0.6, "critical": critical, "verdicts": verdicts}
    write(tmp_path, "horizon", {"by_steps": {"2 to 3": part}})
    text = tables.document(tmp_path)
    assert "| greedy accuracy | >= 0.35 | 0.200, not kept |" in text
    assert "| 2 to 3 | 4 | 40 | 75.0% | 7 | 3 | 10.0% | 12.0% | 8.0% | 0.600 |" in text


def test_grpo_is_told_by_its_beginning_and_its_end(results: Path) -> None:
    for arm, gain in (("sft", 0.01), ("cft3", 0.02)):
        for seed in (1, 2):
            curve = {"steps": list(range(8)), "values": [0.1 * seed + gain * step for step in range(8)]}
            curves = dict.fromkeys((tables.REWARD, tables.ENTROPY), curve)
            write(results, f"rl-{arm}-{seed}-0", {"curves": curves})
            write(results, f"rl-drawn-{arm}-{seed}", {"figures": {"pass@1": 0.5, "pass@16": 0.95}})
    rows = rows_of(tables.rl_table(results))
    assert rows["SFT"][0] == "2" and rows["SFT"][1].startswith("0.155")
    less = rows["CFT, Strict-3 less SFT"]
    assert less[1].startswith("0.005") and less[2].startswith("0.065") and less[-1].startswith("0.000")
    before = [tables.seeds_of(results, "drawn", "cft3")[seed]["figures"]["pass@1"] for seed in (1, 2)]
    assert rows["CFT, Strict-3"][5].startswith(f"{np.mean(before):.3f}")


def test_nothing_is_told_of_nothing(tmp_path: Path) -> None:
    assert tables.document(tmp_path).strip() == ""
    assert [make(tmp_path) for make in figures.FIGURES.values()] == [None] * 3


def test_figures_are_drawn_of_what_there_is(results: Path) -> None:
    for seed, arm in enumerate(("sft", "cft3"), 1):
        run = {"figures": {"accuracy": 0.1 * seed}, "annotated": {"other_entropy": 0.2 * seed}}
        write(results, f"sweep-{arm}", {"runs": {"3e-05-1": run}})
        curves = {tag: {"steps": [1, 2], "values": [0.1, 0.3]} for tag in figures.PANELS}
        write(results, f"rl-{arm}-1-0", {"curves": curves})
        for file in results.glob(f"drawn-{arm}-*.json"):
            file.write_text(json.dumps({"figures": {f"pass@{k}": 0.1 * k**0.5 for k in figures.KS}}))
    drawn = {name: make(results) for name, make in figures.FIGURES.items()}
    titles = {name: [text.get_text() for text in figure.axes[0].get_legend().texts] for name, figure in drawn.items()}
    assert all(names == ["SFT", "CFT, Strict-3"] for names in titles.values()), titles
    (line, _) = drawn["ladder-entropy"].axes[0].lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0.2], [0.1])
    assert list(drawn["ladder-passes"].axes[0].lines[0].get_ydata()) == pytest.approx(
        [0.1 * k**0.5 for k in figures.KS]
    )
    assert list(drawn["ladder-grpo"].axes[0].lines[1].get_ydata()) == [0.1, 0.3], "the mean of one seed"
