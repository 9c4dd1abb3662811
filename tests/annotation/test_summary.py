"""The lines that end a run: what became of rows and rollouts, and a hint where something is probably wrong."""

from __future__ import annotations

from typing import Any

import pytest

from openrlhf_cft.annotation.summary import annotation_summary, annotation_text, hints

TOTALS = {
    "rows": 100,
    "annotated": 40,
    "wrong": 50,
    "cut_off": 10,
    "positions": 1000,
    "critical": 200,
    "rollouts": 1500,
    "skipped": 500,
    "rollouts_correct": 900,
    "rollouts_wrong": 400,
    "rollouts_truncated": 150,
    "rollouts_unparsable": 50,
    "decoded_tokens": 9000,
}


def summary(**changes: float) -> dict[str, Any]:
    return annotation_summary({"rows": 100}, {**TOTALS, **changes}, 60.0)


def test_rollouts_are_counted_by_what_became_of_them() -> None:
    assert "  of them           900 correct, 400 wrong, 150 cut off, 50 without an answer\n" in annotation_text(
        summary()
    )
    assert "hint" not in annotation_text(summary())


def test_rows_of_an_earlier_version_are_not_counted_so() -> None:
    assert "of them" not in annotation_text(summary(rollouts_correct=100))
    before = {name: value for name, value in summary().items() if name != "rollouts_by_outcome"}
    assert "of them" not in annotation_text(before)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"critical": 40}, ["under 5% of the tokens are critical"]),
        ({"critical": 600}, ["over 50% of the tokens are critical"]),
        ({"rollouts_truncated": 350, "rollouts_correct": 700}, ["350 of 1500 rollouts were cut off"]),
        (
            {"annotated": 10, "wrong": 5, "cut_off": 85},
            ["85 of 100 responses were cut off. Either the model"],
        ),
        (
            {"annotated": 0, "wrong": 0, "cut_off": 100, "positions": 0, "critical": 0, "rollouts": 0}
            | {name: 0 for name in TOTALS if name.startswith("rollouts_")},
            ["100 of 100 responses were cut off"],
        ),
        (
            {"critical": 890, "rollouts_truncated": 800, "rollouts_correct": 250},
            ["800 of 1500 rollouts were cut off", "over 50% of the tokens are critical"],
        ),
    ],
)
def test_what_is_probably_wrong_is_said_with_a_way_out(changes: dict[str, float], told: list[str]) -> None:
    found = hints(summary(**changes))
    assert len(found) == len(told)
    for hint, begin in zip(found, told, strict=True):
        assert hint.startswith(begin)
        assert f"hint: {hint}" in annotation_text(summary(**changes)).splitlines()
