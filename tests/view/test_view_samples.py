"""Success rates of an annotation on the page and in the terminal."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import view_data
from view_browser import card_text, opened, token

from openrlhf_cft.cli import view
from openrlhf_cft.data import records
from openrlhf_cft.errors import InputError


@pytest.fixture
def sampled(tmp_path: Path) -> Path:
    """Two rows: of 16 samples, a token has its number correct, and its alternatives one less and two less."""
    made, rng = view_data.tokenizer(tmp_path / "tokenizer"), random.Random(5)
    rows = [view_data.row(made, name, "so 2 + 2 is 4", rng) for name in ("first", "second")]
    for row in rows:
        row[records.SAMPLED] = [counts(16 - at) for at in range(len(row[records.RESPONSE_IDS]))]
        for at, position in enumerate(row[records.ALTERNATIVES]):
            for rank, item in enumerate(position, start=1):
                item["sampled"] = None if item["skipped"] else counts(16 - at - rank)
    stated = view_data.metadata(tmp_path / "tokenizer", made)
    return view_data.write(tmp_path / "sampled", rows, stated)


def counts(correct: int) -> dict[str, Any]:
    return {"count": 16, "correct": max(0, correct), "score": None, "tokens": 90}


def test_the_card_of_a_token_has_its_rate_and_those_of_its_alternatives(
    chromium: Any, sampled: Path, tmp_path: Path
) -> None:
    assert view.main([str(sampled), "--out", str(tmp_path / "page.html")]) == 0
    (row, *_) = records.read_rows(sampled)
    with opened(chromium, tmp_path / "page.html") as page:
        for at in (0, 3):
            token(page, "first", at).focus()
            text = card_text(page)
            assert f"{16 - at} of 16 samples correct from here" in text
            for rank, item in enumerate(row[records.ALTERNATIVES][at], start=1):
                assert (f"{16 - at - rank} of 16 samples correct" in text) != item["skipped"]
            heard = page.locator("#live")
            heard.get_by_text(f"{15 - at} of 16 samples correct").wait_for()


def test_the_terminal_has_them_too(sampled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert view.main([str(sampled), "--terminal"]) == 0
    text = capsys.readouterr().out
    (row, *_) = records.read_rows(sampled)
    critical = next(at for at, weight in enumerate(row[records.MASK]) if weight)
    assert f"tokens, {15 - critical} of 16 samples correct)" in text


def test_without_samples_a_page_says_nothing_of_them(tmp_path: Path) -> None:
    made = view_data.tokenizer(tmp_path / "tokenizer")
    rows = [view_data.row(made, "first", "so 4", random.Random(5))]
    data = view_data.write(tmp_path / "plain", rows, view_data.metadata(tmp_path / "tokenizer", made))
    assert view.main([str(data), "--out", str(tmp_path / "page.html")]) == 0
    (row,) = view_data.load(data).responses
    others = [item.alternative for position in row.counterfactuals for item in position]
    assert row.sampled is None and others and all(item.sampled is None for item in others)


def test_samples_that_do_not_fit_the_tokens_are_refused(sampled: Path) -> None:
    rows = list(records.read_rows(sampled))
    rows[1][records.SAMPLED].pop()
    broken = view_data.write(sampled.parent / "broken", rows, records.read_metadata(sampled) or {})
    with pytest.raises(InputError, match="row 'second': samples of"):
        view_data.load(broken)
