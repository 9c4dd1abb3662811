"""The mask convention and the annotated row: the one shift, the cut, refusals, and what is stored comes back."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from openrlhf_cft.data import records
from openrlhf_cft.data.loss_mask import loss_mask
from openrlhf_cft.data.records import Alternative, Sampled, Verdict


@pytest.mark.parametrize("prompt_length", [1, 2, 7])
@pytest.mark.parametrize("position", [0, 3, 4])  # the first response token, one inside, the last (EOS)
def test_a_critical_token_sets_exactly_the_entry_before_it(prompt_length: int, position: int) -> None:
    weights = [0.0] * 5
    weights[position] = 2.5
    mask = loss_mask(prompt_length, weights, max_length=100)
    assert len(mask) == prompt_length + 5
    assert {i: w for i, w in enumerate(mask) if w} == {prompt_length + position - 1: 2.5}


@pytest.mark.parametrize("max_length", range(1, 12))
def test_a_cut_keeps_the_entries_before_it_and_ends_with_zero(max_length: int) -> None:
    whole = loss_mask(3, [1.0] * 5, max_length=100)
    cut = loss_mask(3, [1.0] * 5, max_length)
    assert len(cut) == min(8, max_length)
    assert cut[:-1] == whole[: len(cut) - 1]
    assert cut[-1] == 0.0  # the token that it would predict is gone


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="prompt_length is 0"):
        loss_mask(0, [1.0], 10)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (None, "row 'r7' has no value in column 'mask'"),
        ([1.0], "row 'r7': column 'mask' has 1 weights for 2 response tokens"),
        ([1.0, -0.5], "row 'r7': weight -0.5 at response position 1 of column 'mask' is not a finite number >= 0"),
        ([math.nan, 1.0], "row 'r7': weight nan at response position 0 of column 'mask' is not a finite number >= 0"),
        ([1.0, math.inf], "row 'r7': weight inf at response position 1 of column 'mask' is not a finite number >= 0"),
        ([1.0, None], "row 'r7': weight None at response position 1 of column 'mask' is not a finite number >= 0"),
    ],
)
def test_bad_weights_are_named(weights: list[float] | None, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        records.check_weights("r7", weights, [5, 6], "mask")
    assert str(raised.value) == message


def test_good_weights_pass() -> None:
    records.check_weights("r7", [0, 1, 0.25], [5, 6, 7], "mask")
    records.check_weights("r8", [], [], "mask")


@pytest.mark.parametrize(
    "alternative",
    [
        Alternative(5, 2, -1.25, Verdict.WRONG, 12, truncated=False, skipped=False),
        Alternative(5, 3, -2.5, None, 0, truncated=False, skipped=True),
        Alternative(5, 2, -1.25, Verdict.WRONG, 2, truncated=False, skipped=False, text=" so 4"),
        Alternative(5, 2, -1.25, Verdict.WRONG, 2, truncated=False, skipped=False, sampled=Sampled(8, 3, 0.5, 90)),
        Alternative(5, 2, -1.25, Verdict.WRONG, 2, truncated=False, skipped=False, sampled=Sampled(8, 0, None, 9)),
    ],
)
def test_an_alternative_survives_parquet(alternative: Alternative, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert records.alternative_from_dict(records.alternative_to_dict(alternative)) == alternative
    fields = records.annotation_fields(alternative.text is not None, samples=alternative.sampled is not None)
    field = pa.field(records.ALTERNATIVES, fields[records.ALTERNATIVES])
    row = {records.ALTERNATIVES: [[records.alternative_to_dict(alternative)], []]}
    pq.write_table(pa.Table.from_pylist([row], schema=pa.schema([field])), tmp_path / "a.parquet")
    stored = next(iter(records.read_rows(tmp_path)))[records.ALTERNATIVES]
    assert [[records.alternative_from_dict(value) for value in position] for position in stored] == [[alternative], []]


def test_an_unknown_verdict_is_refused() -> None:
    value = records.alternative_to_dict(Alternative(5, 2, -1.0, Verdict.WRONG, 1, truncated=False, skipped=False))
    with pytest.raises(ValueError, match="maybe"):
        records.alternative_from_dict({**value, "verdict": "maybe"})


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.CORRECT])
def test_every_verdict_but_correct_fails(verdict: Verdict) -> None:
    assert Alternative(1, 2, -1.0, verdict, 1, truncated=False, skipped=False).failed
    assert not Alternative(1, 2, -1.0, Verdict.CORRECT, 1, truncated=False, skipped=False).failed
    assert not Alternative(1, 2, -1.0, None, 0, truncated=False, skipped=True).failed
