"""`masks transfer --method score`: tokens are picked by the probability that the target itself gives them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from masks_data import written
from transfer_helpers import TEXTS, literal_probabilities, load, run

from openrlhf_cft.data.records import MASK, PROMPT_IDS, RESPONSE, RESPONSE_IDS, read_metadata


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--count", "3"], lambda p, carried: 3),
        (["--share", "0.25"], lambda p, carried: int(len(p) / 4 + 0.5)),
        ([], lambda p, carried: sum(carried)),
        (["--count", "same"], lambda p, carried: sum(carried)),
        (["--threshold", "0.0005"], lambda p, carried: sum(x < 0.0005 for x in p)),
    ],
)
def test_tokens_are_picked_by_the_models_probability(
    models: dict[str, str], scorer: str, tmp_path: Path, flags: list[str], expected: Any
) -> None:
    source = written(tmp_path / "in", load(models["metaspace"]), TEXTS[:8], models["metaspace"])
    carried, _ = run(source, scorer, tmp_path / "carried")
    how = ["--method", "score", "--dtype", "float32", "--batch_tokens", "300", *flags]
    rows, figures = run(source, scorer, tmp_path / "out", *how)
    agreeing = tokens = 0
    for row, other in zip(rows, carried, strict=True):
        assert [row[name] for name in (PROMPT_IDS, RESPONSE_IDS, RESPONSE)] == [
            other[name] for name in (PROMPT_IDS, RESPONSE_IDS, RESPONSE)
        ]
        p = literal_probabilities(scorer, row)
        assert set(row[MASK]) <= {0.0, 1.0} and sum(row[MASK]) == expected(p, other[MASK])
        inside = [x for x, weight in zip(p, row[MASK], strict=True) if weight]
        outside = [x for x, weight in zip(p, row[MASK], strict=True) if not weight]
        assert not inside or not outside or max(inside) <= min(outside) * (1 + 1e-4)
        agreeing += sum(a == b for a, b in zip(row[MASK], other[MASK], strict=True))
        tokens += len(p)
    assert math.isclose(figures["score_against_characters"]["agreement"], agreeing / tokens)
    assert 0 < figures["coverage"] < 1
    metadata = read_metadata(tmp_path / "out") or {}
    assert metadata["criterion"] == "score" and metadata["transferred"]["method"] == "score"


def test_rows_longer_than_the_model_are_left_out(models: dict[str, str], scorer: str, tmp_path: Path) -> None:
    source = written(tmp_path / "in", load(models["metaspace"]), [TEXTS[0], TEXTS[1] * 20], models["metaspace"])
    _, figures = run(source, scorer, tmp_path / "out", "--method", "score")
    assert figures["rows"] == 1 and figures["rows_dropped"] == {"the row is longer than the model takes": 1}
    rows, _ = run(source, scorer, tmp_path / "out2")
    assert len(rows) == 2, "without the model there is no such limit"
