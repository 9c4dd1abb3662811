"""Masks and weights from sampled success rates, against the stored counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from masks_data import annotate

from openrlhf_cft.cli.masks import main
from openrlhf_cft.data.records import ALTERNATIVES, MASK, SAMPLED, read_metadata, read_rows
from openrlhf_cft.errors import InputError


def derive(source: Path, out: Path, *flags: str) -> list[dict[str, Any]]:
    assert main(["derive", str(source), "--out", str(out), "--column", "w", *flags]) == 0
    return list(read_rows(out))


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return annotate(tmp_path_factory.mktemp("sampled") / "a", 4, exhaustive=True, samples=7)


def test_the_drop_is_from_the_token_to_its_best_alternative(sampled: Path, tmp_path: Path) -> None:
    rows = derive(sampled, tmp_path / "out", "--how", "success_drop")
    weights = []
    for row in rows:
        for weight, own, alternatives in zip(row["w"], row[SAMPLED], row[ALTERNATIVES], strict=True):
            best = max(alternative["sampled"]["correct"] for alternative in alternatives)
            assert weight == pytest.approx(max(0, own["correct"] - best) / 7)
            weights.append(weight)
        assert row[SAMPLED][-1]["correct"] == 7
    assert 0 in weights and len(set(weights)) > 4
    assert (read_metadata(tmp_path / "out") or {})["derived"]["w"]["from"] == [ALTERNATIVES, SAMPLED]


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 4 / 7, 1.0])
def test_strict_by_success_rates(sampled: Path, tmp_path: Path, k: int, threshold: float) -> None:
    """At least the threshold is a success: four of seven reach 4 / 7."""
    rows = derive(sampled, tmp_path / "out", "--how", f"strict-{k}", "--threshold", str(threshold))
    bits = []
    for row in rows:
        for weight, alternatives in zip(row["w"], row[ALTERNATIVES], strict=True):
            bits.append(weight)
            assert weight == all(a["sampled"]["correct"] < threshold * 7 - 1e-9 for a in alternatives[: k - 1])
    assert {0.0, 1.0} == set(bits)
    assert bits != [weight for row in rows for weight in row[MASK]], "equal masks would show nothing"
    assert (read_metadata(tmp_path / "out") or {})["derived"]["w"]["threshold"] == threshold


def refused(source: Path, out: Path, *flags: str) -> str:
    with pytest.raises(InputError) as raised:
        derive(source, out, *flags)
    assert not out.exists() or not list(out.rglob("*.parquet"))
    return str(raised.value)


def test_a_skipped_alternative_that_would_decide_is_refused(tmp_path: Path) -> None:
    """An earlier one that reaches the threshold decides, whatever was skipped behind it."""
    data, out = annotate(tmp_path / "a", 4, samples=7), tmp_path / "out"
    error = refused(data, out, "--how", "success_drop")
    assert "was skipped, and the best success rate needs them all: annotate with --annotate.exhaustive" in error
    error = refused(data, out, "--how", "strict-4", "--threshold", "1")
    assert "was skipped and would decide: annotate with --annotate.exhaustive" in error
    assert derive(data, out, "--how", "strict-2", "--threshold", "0.5")


@pytest.mark.parametrize("threshold", ["1.5", "0", "nan"])
def test_thresholds_out_of_range_are_refused(sampled: Path, tmp_path: Path, threshold: str) -> None:
    error = refused(sampled, tmp_path / "out", "--how", "strict-2", "--threshold", threshold)
    assert error.startswith(f"--threshold: {float(threshold)}; `--how strict-2` takes a success rate above 0")


def test_one_threshold_is_not_taken_for_two_things(sampled: Path, tmp_path: Path) -> None:
    error = refused(sampled, tmp_path / "out", "v", "--how", "strict-2", "threshold", "--threshold", "0.5")
    assert "is a success rate for strict-k and a score for threshold: derive one after the other" in error


@pytest.mark.parametrize("flags", [["success_drop"], ["strict-2", "--threshold", "0.5"]])
def test_without_samples_nothing_is_guessed(tmp_path: Path, flags: list[str]) -> None:
    error = refused(annotate(tmp_path / "a", 3, exhaustive=True), tmp_path / "out", "--how", *flags)
    assert error.endswith("has no success rates: annotate with --annotate.samples")


def test_compare_tells_how_often_greedy_and_sampled_verdicts_agree(
    sampled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    derive(sampled, tmp_path / "out", "--how", "strict-4", "--threshold", "0.5")
    report = tmp_path / "report.json"
    assert main(["compare", str(tmp_path / "out"), "--mask_b", "w", "--out", str(report)]) == 0
    found = json.loads(report.read_text())["sampled"]
    tried = [
        (alternative["verdict"] == "correct", alternative["sampled"]["correct"] >= 4)
        for row in read_rows(sampled)
        for position in row[ALTERNATIVES]
        for alternative in position
    ]
    assert found["alternatives"] == len(tried) > 100
    assert (
        found["agreement"] == pytest.approx(sum(a == b for a, b in tried) / len(tried)) and 0 < found["agreement"] < 1
    )
    assert found["only_greedy_correct"] == tried.count((True, False)) > 0
    assert found["only_sampled_correct"] == tried.count((False, True)) > 0
    line = f"agree at {found['agreement']:.1%} of {len(tried)} alternatives of A"
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("samples", [0, 3])
def test_a_card_explains_the_column(tmp_path: Path, capsys: pytest.CaptureFixture[str], samples: int) -> None:
    data = annotate(tmp_path / "a", 3, samples=samples)
    assert main(["card", str(data)]) == 0
    assert ("| `token_samples` | for each response token" in capsys.readouterr().out) == bool(samples)


def test_merged_with_a_data_set_that_has_none_the_rows_keep_theirs(sampled: Path, tmp_path: Path) -> None:
    plain = annotate(tmp_path / "plain", 4, exhaustive=True, seed=5)
    flags = ["merge", str(sampled), str(plain), "--on_duplicate", "distinct", "--out", str(tmp_path / "both")]
    assert main(flags) == 0
    both = list(read_rows(tmp_path / "both"))
    kept = list(read_rows(sampled))
    assert [row[SAMPLED] for row in both[: len(kept)]] == [row[SAMPLED] for row in kept]
    assert all(row[SAMPLED] is None for row in both[len(kept) :]) and len(both) > len(kept)
    error = refused(tmp_path / "both", tmp_path / "out", "--how", "success_drop")
    assert "has no samples of its tokens: annotate with --annotate.samples" in error
