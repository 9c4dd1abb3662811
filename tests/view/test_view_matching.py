"""Which rows of two data sets belong together, and whether their masks can be compared."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import view_data
from tokenizer_families import FAMILIES

from openrlhf_cft.cli import view
from openrlhf_cft.data import records


def load(*arguments: object) -> Any:
    return view.load(view.job_of([*map(str, arguments), "--terminal"]))


def test_an_id_of_several_responses_takes_those_of_the_same_tokens_first(tmp_path: Path) -> None:
    made = view_data.tokenizer(tmp_path / "tokenizer")
    stated = view_data.metadata(tmp_path / "tokenizer", made)
    rng = random.Random(0)
    a, b, c = (view_data.row(made, "x", text, rng) for text in ("one", "two", "three"))
    view_data.write(tmp_path / "left", [a, b], stated)
    view_data.write(tmp_path / "right", [c, b, a], stated)
    found = load(tmp_path / "left", tmp_path / "right")
    assert [(pair.left.text, pair.right.text, pair.same) for pair in found.pairs] == [
        ("one", "one", True),
        ("two", "two", True),
    ]
    assert (found.only_left, found.only_right) == (0, 1)


@pytest.mark.parametrize("family", ["byte_level", "metaspace"])
def test_masks_of_an_instruct_model_and_its_base_are_compared(tmp_path: Path, family: str) -> None:
    """Their tokenizers differ in EOS alone, so token ids mean the same; those of another vocabulary do not."""
    made, other = view_data.tokenizer(tmp_path / "tokenizer"), FAMILIES[family]()
    other.eos_token = other.pad_token
    other.save_pretrained(tmp_path / "base")
    rows = view_data.hostile(made)
    for row in rows:
        row[records.RESPONSE_IDS] = [token % 200 + 2 for token in row[records.RESPONSE_IDS]]
    view_data.write(tmp_path / "left", rows, view_data.metadata(tmp_path / "tokenizer", made))
    view_data.write(tmp_path / "right", rows, view_data.metadata(tmp_path / "base", other))
    pairs = load(tmp_path / "left", tmp_path / "right").pairs
    assert all(pair.same == (family == "byte_level") for pair in pairs) and pairs
