"""The study: its steps, that it resumes where it stopped, and that docs/evidence.md has the tables of its results."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EVIDENCE = Path(__file__).parents[2] / "examples" / "evidence"
sys.path.insert(0, str(EVIDENCE))

import study  # noqa: E402
import table  # noqa: E402
from arms import ARMS  # noqa: E402
from common import Settings  # noqa: E402

QUESTIONS, SAMPLES = 40, 8


def settings(folder: Path, **changed: Any) -> Settings:
    own = vars(study.parser().parse_args([]))
    for name in ("minutes", "study"):
        own.pop(name)
    return Settings(**{**own, "results": folder / "results", "run_dir": folder / "run", **changed})


def test_every_arm_has_its_sweep_and_its_seeds(tmp_path: Path) -> None:
    names = [step.name for step in study.steps(settings(tmp_path))]
    assert len(names) == len(set(names))
    for arm in ARMS:
        assert sum(name.startswith(f"sweep-{arm.name}-") for name in names) == 4
        seeds = 5 if arm.name in ("sft", "cft3", "random") else 3
        assert sum(name.startswith(f"test-{arm.name}-") for name in names) == seeds
    for seed in range(1, 6):  # right after the checkpoints that it begins with
        assert names.index(f"rl-cft3-{seed}") == names.index(f"rl-sft-{seed}") + 1
        assert max(at for at, name in enumerate(names) if name.startswith("test-") and name.endswith(f"-{seed}")) == (
            names.index(f"rl-sft-{seed}") - 1
        )
    assert names.index("masks") < min(names.index(name) for name in names if name.startswith("sweep"))


def test_it_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def step(name: str) -> study.Step:
        def make() -> dict[str, Any]:
            made.append(name)
            if name == "b" and made.count("b") == 1:
                raise SystemExit("killed")
            return {"figure": 1}

        return study.Step(name, make)

    monkeypatch.setattr(study, "steps", lambda _: map(step, "abc"))
    sizes = settings(tmp_path)
    with pytest.raises(SystemExit):
        study.run(sizes, None)
    assert study.run(sizes, 0) is False  # no time left: nothing is begun
    assert study.run(sizes, None) is True
    assert made == ["a", "b", "b", "c"]
    assert sizes.result("c")["figure"] == 1 and sizes.result("c")["seconds"] >= 0


def test_results_of_other_sizes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "steps", lambda _: iter(()))
    assert study.run(settings(tmp_path), None) and study.run(settings(tmp_path, gpus=8), None)
    with pytest.raises(SystemExit, match=r"another study, with --train 2600 and not 5000"):
        study.run(settings(tmp_path, train=5000), None)


def results(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Made-up results of two arms, five seeds each."""
    chance, found = random.Random(0), {}
    for arm, right in (("sft", 0.4), ("cft3", 0.6)):
        for seed in range(1, 6):
            greedy = "".join(str(int(chance.random() < right)) for _ in range(QUESTIONS))
            correct = [chance.randint(0, SAMPLES) for _ in range(QUESTIONS)]
            figures = {"accuracy": greedy.count("1") / QUESTIONS, "pass@1": sum(correct) / QUESTIONS / SAMPLES}
            found[arm, seed] = {"figures": figures, "greedy": greedy, "correct": correct, "samples": SAMPLES}
            (folder / f"test-{arm}-{seed}.json").write_text(json.dumps(found[arm, seed]))
            (folder / f"train-{arm}-{seed}.json").write_text(json.dumps({"rate": 1e-5, "step_of_best": 40}))
    return found


def test_the_tables_say_what_the_results_say(tmp_path: Path) -> None:
    found = results(tmp_path)
    accuracy = {arm: [found[arm, seed]["figures"]["accuracy"] for seed in range(1, 6)] for arm in ("sft", "cft3")}
    text = table.document(tmp_path, total=30)
    assert text.startswith("20 of 30 steps are done: the study is not finished.")
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in text.splitlines()[2:]
        if line
    }
    margin = 2.776 * float(np.std(accuracy["sft"], ddof=1)) / 5**0.5
    assert rows["SFT"][:3] == ["5", "1e-05", f"{np.mean(accuracy['sft']):.3f} ± {margin:.3f}"]
    paired = np.subtract(accuracy["cft3"], accuracy["sft"])
    margin = 2.776 * float(np.std(paired, ddof=1)) / 5**0.5
    (cells,) = (cells for title, cells in rows.items() if title.startswith("CFT, Strict-3 less SFT"))
    assert cells[0].startswith(f"{np.mean(paired):.3f} ± {margin:.3f} [")
    assert "±" in cells[1] and table.passes(found["sft", 1], 8) == [float(c > 0) for c in found["sft", 1]["correct"]]


def test_the_sweep_is_shown(tmp_path: Path) -> None:
    for arm, rate, right in (("cft3", 1e-5, 0.25), ("cft3", 3e-4, 0.5), ("sft", 1e-5, 0.125)):
        result = {"rate": rate, "figures": {"accuracy": right}}
        (tmp_path / f"sweep-{arm}-{rate:g}.json").write_text(json.dumps(result))
    assert table.sweep_table(tmp_path) == [
        "| validation, greedy accuracy | 1e-05 | 0.0003 |",
        "|---|---|---|",
        "| SFT | 0.125 | - |",
        "| CFT, Strict-3 | 0.250 | 0.500 |",
    ]


def test_more_than_was_sampled_is_not_measured(tmp_path: Path) -> None:
    for (arm, seed), result in results(tmp_path).items():
        (tmp_path / f"test-{arm}-{seed}.json").write_text(json.dumps({**result, "samples": 4, "correct": [1, 2]}))
    (row,) = (line for line in table.document(tmp_path, total=30).splitlines() if "less SFT" in line)
    assert row.endswith("| - |") and row.count("±") == 2


def test_reinforcement_learning_is_told_by_how_it_begins_and_ends(tmp_path: Path) -> None:
    for seed in (1, 2):
        for arm, gain in (("sft", 0.01), ("cft3", 0.02)):
            curve = [0.1 * seed + gain * step for step in range(20)]
            curves = {tag: {"steps": list(range(1, 21)), "values": curve} for tag in table.RL_FIGURES.values()}
            (tmp_path / f"rl-{arm}-{seed}.json").write_text(json.dumps(curves))
    _, sft, cft, less = (line for line in table.document(tmp_path, total=30).splitlines() if line.startswith("| "))
    assert sft.split(" | ")[2:4] == [f"{0.15 + 0.02:.3f} ± {0.05 * 12.706:.3f}", f"{0.15 + 0.17:.3f} ± 0.635"]
    assert cft.split(" | ")[2].startswith("0.190 ±")
    assert less.split(" | ")[1:4] == ["2", "0.020 ± 0.000", "0.170 ± 0.000"]
    assert table.ends([1.0, 2.0]) == ([1.0], [2.0])


def test_nothing_measured_is_no_table(tmp_path: Path) -> None:
    assert table.document(tmp_path, total=30) == "0 of 30 steps are done: the study is not finished.\n"


def test_the_page_has_the_tables_of_the_results_that_are_kept(tmp_path: Path) -> None:
    total = len(list(study.steps(settings(tmp_path))))
    page = table.PAGE.read_text()
    assert table.in_page(page, table.document(EVIDENCE / "results", total)) == page
