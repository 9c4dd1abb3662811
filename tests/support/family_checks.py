"""Checks of annotated rows of a tiny model, token by token."""

from __future__ import annotations

from typing import Any

import pytest
from family_models import RIGHT, Family

from openrlhf_cft.data.records import ALTERNATIVES, ID, MASK, PROMPT, PROMPT_IDS, RESPONSE, RESPONSE_IDS


def check_own(family: Family, rows: list[dict[str, Any]]) -> None:
    """Check prompts, and the model's own responses with their masks and alternatives."""
    table = family.table
    assert [row[ID] for row in rows] == [row["id"] for row in RIGHT]
    for row, asked in zip(rows, RIGHT, strict=True):
        check_prompt(family, row, asked["question"])
        opening = len(table.opening)
        assert row[RESPONSE_IDS] == table.response and row[RESPONSE] == ":2"
        assert row[MASK] == [0] * opening + [1, 1]
        tried = [[(a["token_id"], a["verdict"]) for a in position] for position in row[ALTERNATIVES]]
        wrong = [(table.three, "wrong"), (table.four, "wrong")]
        assert tried == [[(table.two, "correct"), (table.three, None)]] * opening + [wrong, wrong]
        for position, before in zip(row[ALTERNATIVES], [table.start, *row[RESPONSE_IDS]], strict=False):
            logprobs = [table.logprob(before, a["token_id"]) for a in position]
            assert [a["logprob"] for a in position] == pytest.approx(logprobs, abs=1e-3)


def check_given(family: Family, rows: list[dict[str, Any]]) -> None:
    """Check that given texts have the tokens of the whole conversation, and the mask that the table implies."""
    assert [row[ID] for row in rows] == [row["id"] for row in RIGHT]
    for row, asked in zip(rows, RIGHT, strict=True):
        check_prompt(family, row, asked["question"])
        assert row[RESPONSE_IDS] == family.given_ids(asked["question"], asked["solution"])
        assert row[RESPONSE].strip() == asked["solution"]
        assert row[MASK] == family.table.mask(row[RESPONSE_IDS]) and 0 < sum(row[MASK]) < len(row[MASK])


def check_prompt(family: Family, row: dict[str, Any], question: str) -> None:
    """Check that BOS is there once or never, the response's end once, and that texts and token ids agree."""
    assert row[PROMPT_IDS] == family.prompt_ids(question) and row[PROMPT] == family.text(question)
    begin, end = family.tokenizer.bos_token_id, family.id_of(family.end)
    if family.begin is None:
        assert begin not in row[PROMPT_IDS]
    else:
        assert begin == family.id_of(family.begin)
        assert row[PROMPT_IDS][0] == begin and row[PROMPT_IDS].count(begin) == 1
    assert row[RESPONSE_IDS][-1] == end and row[RESPONSE_IDS].count(end) == 1
    assert family.tokenizer.decode(row[RESPONSE_IDS], skip_special_tokens=True) == row[RESPONSE]
