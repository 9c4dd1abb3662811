"""Derived columns against annotations made anew: of the real annotator over a scripted model, and of written text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from masks_data import annotate, written
from properties import tries
from tokenizer_families import byte_level

from openrlhf_cft.cli.masks import main
from openrlhf_cft.data.records import ALTERNATIVES, MASK, METADATA_KEY, RESPONSE_IDS, read_metadata, read_rows
from openrlhf_cft.masks.select import Budget, highest


def derive(source: Path, out: Path, *flags: str) -> list[dict[str, Any]]:
    assert main(["derive", str(source), "--out", str(out), *flags]) == 0
    return list(read_rows(out))


def column(rows: Sequence[dict[str, Any]], name: str) -> list[list[float]]:
    return [row[name] for row in rows]


@pytest.mark.parametrize("exhaustive", [False, True])
def test_a_lower_k_is_what_annotating_with_it_gives(tmp_path: Path, exhaustive: bool) -> None:
    source = annotate(tmp_path / "five", 5, exhaustive)
    names, hows = ["two", "three", "four", "five"], ["strict-2", "strict-3", "strict-4", "strict-5"]
    rows = derive(source, tmp_path / "out", "--column", *names, "--how", *hows)
    for k, name in enumerate(names, start=2):
        again = list(read_rows(annotate(tmp_path / f"strict-{k}", k)))
        assert column(rows, name) == column(again, MASK), k
    assert column(rows, "five") == column(rows, MASK)
    assert len({json.dumps(column(rows, name)) for name in names}) == 4, "all equal would show nothing"
    recorded = (read_metadata(tmp_path / "out") or {})["derived"]
    assert list(recorded) == names and recorded["two"]["how"] == "strict-2" and "openrlhf_cft" in str(recorded["two"])
    kept = pq.read_table(tmp_path / "out").drop_columns(names)
    assert kept.equals(pq.read_table(source))
    once_more = derive(tmp_path / "out", tmp_path / "more", "--column", "x", "--how", "strict-2")
    assert column(once_more, "x") == column(rows, "two")
    assert list((read_metadata(tmp_path / "more") or {})["derived"]) == [*names, "x"]


def test_the_share_of_failing_alternatives(tmp_path: Path) -> None:
    rows = derive(annotate(tmp_path / "a", 5, True), tmp_path / "out", "--column", "w", "--how", "failing_share")
    for row in rows:
        for weight, alternatives in zip(row["w"], row[ALTERNATIVES], strict=True):
            assert weight == sum(alternative["verdict"] != "correct" for alternative in alternatives) / 4
    assert {weight for row in rows for weight in row["w"]} == {0, 0.25, 0.5, 0.75, 1}
    two = annotate(tmp_path / "two", 2)  # its one alternative is always tried
    rows = derive(two, tmp_path / "out2", "--column", "w", "--how", "failing_share")
    assert column(rows, "w") == column(rows, MASK)


def test_what_was_skipped_is_not_guessed(tmp_path: Path) -> None:
    source = annotate(tmp_path / "a", 4)
    with pytest.raises(ValueError, match=r"row '\d+', response position \d+: .* skipped.*--annotate.exhaustive"):
        derive(source, tmp_path / "out", "--column", "w", "--how", "failing_share")
    assert not (tmp_path / "out").exists()


def graded(path: Path, exhaustive: bool) -> Path:
    """A data set whose alternatives have scores in tenths, right from 0.6 on, tried until one is."""
    source = annotate(path, 4, exhaustive=True)
    table = pq.read_table(source)
    rows = table.to_pylist()
    for number, row in enumerate(rows):
        for position, alternatives in enumerate(row[ALTERNATIVES]):
            right = False
            for place, alternative in enumerate(alternatives):
                score = (7 * number + 3 * position + 5 * place) % 11 / 10
                skipped = right and not exhaustive
                alternative["score"] = None if skipped or alternative["verdict"] == "timeout" else score
                verdict = "timeout" if alternative["verdict"] == "timeout" else "correct" if score >= 0.6 else "wrong"
                alternative["verdict"] = None if skipped else verdict
                alternative["skipped"] = skipped
                right = right or verdict == "correct"
    metadata = {METADATA_KEY: json.dumps({"criterion": "strict-4", "verifier": "/r.py", "threshold": 0.6}).encode()}
    pq.write_table(pa.Table.from_pylist(rows, table.schema.with_metadata(metadata)), source / "part-0.parquet")
    return source


@pytest.mark.parametrize("threshold", ["0.1", "0.3", "0.6"])
def test_another_threshold_of_the_score(tmp_path: Path, threshold: str) -> None:
    flags = ["--column", "m", "--how", "threshold", "--threshold", threshold]
    rows = derive(graded(tmp_path / "all", True), tmp_path / "out", *flags)
    for row in rows:
        for weight, alternatives in zip(row["m"], row[ALTERNATIVES], strict=True):
            scores = [0 if alternative["score"] is None else alternative["score"] for alternative in alternatives]
            assert weight == all(score < float(threshold) - 1e-6 for score in scores)
    some = derive(graded(tmp_path / "some", False), tmp_path / "out2", *flags)
    assert column(some, "m") == column(rows, "m"), "what was skipped does not matter"
    with pytest.raises(ValueError, match=r"--threshold: 0.7 is above the annotation's own 0.6"):
        derive(tmp_path / "all", tmp_path / "out3", *flags[:-1], "0.7")


TEXTS = [f"{number} + {number} = {2 * number}, naïve 🎉 x{number}" for number in range(40)]


def test_numbers(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.save_pretrained(tmp_path / "model")
    source = written(tmp_path / "a", tokenizer, TEXTS, str(tmp_path / "model"))
    for row in derive(source, tmp_path / "out", "--column", "n", "--how", "numbers"):
        texts = [tokenizer.decode([token]) for token in row[RESPONSE_IDS]]
        assert row["n"] == [float(any(c in "0123456789" for c in text)) for text in texts]
        assert 0 < sum(row["n"]) < len(row["n"])


def test_random_tokens_as_many_as_are_critical(tmp_path: Path) -> None:
    tokenizer = byte_level()
    source = written(tmp_path / "a", tokenizer, TEXTS)
    table = pq.read_table(source)
    (tmp_path / "turned").mkdir()
    pq.write_table(table.take(list(range(len(table)))[::-1]), tmp_path / "turned" / "part-0.parquet")
    rows = derive(source, tmp_path / "out", "--column", "r", "--how", "random")
    turned = derive(tmp_path / "turned", tmp_path / "out2", "--column", "r", "--how", "random")
    assert column(rows, "r") == column(turned, "r")[::-1], "the order of the rows must not matter"
    assert [sum(row["r"]) for row in rows] == [sum(row[MASK]) for row in rows]
    assert {weight for row in rows for weight in row["r"]} == {0, 1}
    other = derive(source, tmp_path / "out3", "--column", "r", "--how", "random", "--seed", "7")
    assert column(other, "r") != column(rows, "r")
    quarter = derive(source, tmp_path / "out4", "--column", "r", "--how", "random", "--share", "0.25")
    assert [sum(row["r"]) for row in quarter] == [int(len(row["r"]) / 4 + 0.5) for row in quarter]
    places = [at / len(row["r"]) for row in rows for at, weight in enumerate(row["r"]) if weight]
    assert 0.4 < sum(places) / len(places) < 0.55, "anywhere in the response"


@tries(100)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, -2.0]), max_size=8), st.data())
def test_the_highest_scores(scores: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(scores)))
    mask = highest(scores, count)
    assert sum(mask) == count and set(mask) <= {0.0, 1.0}
    for at, one in enumerate(scores):
        for later, other in enumerate(scores[at + 1 :], start=at + 1):
            assert not (mask[later] and not mask[at] and one >= other), "an equal, earlier one goes first"
            assert not (mask[at] and not mask[later] and one < other)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--column", "m", "--how", "strict-5"], "--how: 'strict-5' needs 4 alternatives, and .* is strict-3"),
        (["--column", "m", "--how", "strict-1"], "--how: 'strict-1' is no strict-k with a k of at least 2"),
        (
            ["--column", "m", "--how", "strict"],
            "--how: 'strict' is none of .*random, strict-2, success_drop, threshold",
        ),
        (["--column", "m", "--how", "nonsense"], "--how: 'nonsense' is none of"),
        (["--column", MASK, "--how", "random"], "--column: 'critical_mask' is there already"),
        (["--column", "m", "m", "--how", "random", "random"], "--column: 'm' is there already"),
        (["--column", "m", "--how", "random", "strict-2"], "--how: 2 given for 1 columns"),
        (["--column", "m", "--how", "random", "--share", "1.5"], "--share: 1.5 must be between 0 and 1"),
        (["--column", "m", "--how", "random", "--reference", "x"], "has no column 'x'"),
        (["--column", "m", "--how", "strict-2", "--share", "0.5"], "--share: 0.5 is unused by strict-2"),
        (["--column", "m", "--how", "random", "--threshold", "0.5"], "--threshold: 0.5 is unused by random"),
        (["--column", "m", "--how", "threshold"], "--threshold: None; `--how threshold` needs one above 0"),
        (["--column", "m", "--how", "numbers"], "--model.model_name_or_path: the metadata of .* names no model"),
    ],
)
def test_wishes_that_cannot_be_met(tmp_path: Path, flags: list[str], told: str) -> None:
    source = annotate(tmp_path / "a", 3)
    with pytest.raises(ValueError, match=told):
        derive(source, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_rows_without_outcomes_are_named(tmp_path: Path) -> None:
    source = annotate(tmp_path / "a", 3)
    table = pq.read_table(source)
    for change, told in ((None, "has no alternatives"), ([[]], r"has alternatives of 1 positions and \d+ response")):
        values = table[ALTERNATIVES].to_pylist()
        values[2] = change
        changed = pa.array(values, table.schema.field(ALTERNATIVES).type)
        at = table.schema.get_field_index(ALTERNATIVES)
        pq.write_table(table.set_column(at, table.schema.field(at), changed), source / "part-0.parquet")
        with pytest.raises(ValueError, match=f"row '{table['id'][2]}' {told}"):
            derive(source, tmp_path / "out", "--column", "m", "--how", "strict-2")


def test_a_budget_needs_fitting_weights() -> None:
    row = {"id": "r", RESPONSE_IDS: [1, 2], "m": [1.0]}
    with pytest.raises(ValueError, match="row 'r': column 'm' has 1 weights for 2 response tokens"):
        Budget("m").count(row)
    assert Budget("m", 0.25).count(row) == 1 and Budget(None, 0.2).columns == ()
