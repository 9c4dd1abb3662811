"""What the page and the shell show, without a browser: tokens, pairs, payload, refusals."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import view_data
from hypothesis import given
from hypothesis import strategies as st
from properties import tries
from tokenizer_families import FAMILIES
from view_data import load

from openrlhf_cft import display
from openrlhf_cft.cli import view
from openrlhf_cft.data import records
from openrlhf_cft.data.annotated import open_data
from openrlhf_cft.data.token_text import pieces
from openrlhf_cft.display import BRACKETS
from openrlhf_cft.view import page, terminal
from openrlhf_cft.view.model import read


def test_tokens_are_those_of_the_tokenizer(folder: Path) -> None:
    shown = load(folder / "hostile")
    made = view_data.FAMILIES["byte_level"]()
    stored = list(records.read_rows(folder / "hostile"))
    assert len(shown.responses) == len(stored) == shown.total
    for response, row in zip(shown.responses, stored, strict=True):
        assert response.text == row["response"]
        assert response.pieces == pieces(made, row["response_token_ids"])
        assert response.weights == row["critical_mask"]
        assert response.question == row["question"] and response.gold == row["gold"]
        kept = [[item.alternative for item in found] for found in response.counterfactuals]
        fields = records.Alternative.__dataclass_fields__
        assert [[{k: v for k, v in a.items() if k in fields} for a in found] for found in row["alternatives"]] == [
            [records.alternative_to_dict(item) for item in found] for found in kept
        ]


def unpacked(side: list[Any], first: list[int], payload: dict[str, Any]) -> dict[str, Any]:
    """A packed response, read back in the slowest and plainest way."""
    answer, verdict, tokens, weights, alternatives = side
    vocabulary = payload["vocabulary"]
    found = []
    for position in alternatives or []:
        found.append([])
        for packed in position:
            token, rank, logprob, verdict_number, length, truncated, score, text = packed + [None] * (8 - len(packed))
            skipped = verdict_number is None
            found[-1].append(
                {
                    "token_id": vocabulary[token][0],
                    "rank": rank,
                    "logprob": logprob,
                    "verdict": None if skipped else payload["verdicts"][verdict_number],
                    "rollout_length": length or 0,
                    "truncated": bool(truncated),
                    "skipped": skipped,
                    "score": score,
                    "text": None if text is None else payload["texts"][text],
                }
            )
    return {
        "answer": answer,
        "verdict": verdict,
        "ids": [vocabulary[token][0] for token in tokens or first],
        "text": "".join(item[1] for item in (vocabulary[t] for t in tokens or first) if not (item + [0] * 4)[3] & 1),
        "weights": [float(weight) for weight in weights],
        "alternatives": found,
    }


@pytest.mark.parametrize("mask", ["critical_mask", "weights"])
def test_the_payload_holds_every_row_and_loses_only_digits(folder: Path, mask: str) -> None:
    found = json.loads(page.to_json(page.payload(load(folder / "hostile", "--mask", mask))))
    for packed, row in zip(found["rows"], records.read_rows(folder / "hostile"), strict=True):
        identity, question, gold, [side], _ = packed
        back = unpacked(side, side[2], found)
        assert (identity, question, gold) == (row["id"], row["question"], row["gold"])
        assert back["ids"] == row["response_token_ids"] and back["text"] == row["response"]
        assert back["weights"] == pytest.approx(row[mask], rel=1e-3)
        for stored, shown in zip(row["alternatives"], back["alternatives"], strict=True):
            for expected, other in zip(stored, shown, strict=True):
                logprob = other.pop("logprob")
                assert math.exp(logprob) == pytest.approx(math.exp(expected.pop("logprob")), rel=5e-3)
                assert other == expected


@tries(300)
@given(text=st.text(st.one_of(st.characters(), st.sampled_from("<>&\u2028\u202e\x00\u200b/!-")), max_size=20))
def test_json_that_no_text_can_leave(text: str) -> None:
    made = page.to_json({"text": [text], text: 1})
    assert json.loads(made) == {"text": [text], text: 1}
    assert not set("<>&\u2028\u2029") & set(made)
    assert not any(display.hidden(character) for character in made)


def test_the_page_holds_its_parts_once_and_its_policy_fits_them(folder: Path) -> None:
    text = page.page(load(folder / "hostile"))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    allowed = html.unescape(policy[1])
    for tag, source in (("style", "style-src"), ("script", "script-src")):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}'" in allowed
    assert "default-src 'none'" in allowed
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", text)
    (data,) = re.findall(r'<script type="application/json" id="payload">(.*?)</script>', text, re.DOTALL)
    assert len(json.loads(data)["rows"]) == len(view_data.HOSTILE)  # `{{ payload }}` in a response is no slot


def test_two_data_sets_are_matched_by_id_and_tokens(folder: Path) -> None:
    found = load(folder / "hostile", folder / "changed")
    stored = {row["id"]: row for row in records.read_rows(folder / "changed")}
    assert [pair.left.id for pair in found.pairs] == [name for name in view_data.HOSTILE if name in stored]
    assert (found.matched, found.only_left, found.only_right) == (9, 1, 1)
    part = load(folder / "hostile", folder / "changed", "--data.max_samples", 3)
    assert len(part.pairs) == 3 and "the first 3 of 9 matched rows" in terminal.terminal_text(part, BRACKETS)
    assert [pair.left.id for pair in found.pairs if not pair.same] == ["slots"]
    bits = [
        (a > 0, b > 0)
        for pair in found.pairs
        if pair.same
        for a, b in zip(pair.left.weights, stored[pair.left.id]["critical_mask"], strict=True)
    ]
    agreement = found.agreement
    assert agreement.tokens == len(bits)
    assert agreement.share == sum(a == b for a, b in bits) / len(bits)
    packed = page.payload(found)
    assert packed["agreement"]["others"] == 1 and packed["agreement"]["only"] == [1, 1]
    again = unpacked(packed["rows"][0][3][1], packed["rows"][0][3][0][2], packed)
    assert again["weights"] == stored["script"]["critical_mask"]


def test_the_terminal_shows_marks_and_obeys_nothing(folder: Path) -> None:
    shown = load(folder / "hostile")
    text = terminal.terminal_text(shown, BRACKETS)
    assert "\x1b" not in text and "\u202e" not in text and "\x00" not in text
    assert "<script>" in text.replace("⟦", "").replace("⟧", "")
    coloured = terminal.terminal_text(shown, display.COLOUR)
    assert re.sub("\x1b\\[(1;31|0)m", "", coloured) == re.sub("[⟦⟧]", "", text)
    first = shown.responses[0]
    line = next(
        line for line in text.splitlines() if line.strip().replace("⟦", "").replace("⟧", "") == first.text + "</s>"
    )
    marked = re.findall("⟦(.*?)⟧", line)
    runs = "".join(p.text if w else "\n" for p, w in zip(first.pieces, first.weights, strict=True))
    assert marked == [run for run in runs.split("\n") if run]


@pytest.mark.parametrize("critical", [True, False])
def test_what_is_probably_wrong_is_said(folder: Path, tmp_path: Path, critical: bool) -> None:
    """On the page and in the terminal; of the annotator's mask alone."""
    made = FAMILIES["byte_level"]()
    rows = view_data.hostile(made)
    for row in rows if critical else []:
        row[records.MASK] = [1.0] * len(row[records.MASK])
    view_data.write(tmp_path / "in", rows, view_data.metadata(folder / "tokenizer", made), texts=True)
    for mask, hinted in ((records.MASK, critical), ("weights", False)):
        shown = load(tmp_path / "in", "--mask", mask)
        (hints,) = [side["hints"] for side in page.payload(shown)["sets"]]
        assert any(hint.startswith("over 50% of the tokens are critical") for hint in hints) == hinted
        assert [f"hint: {hint}" for hint in hints] == re.findall(
            "^hint: .*", terminal.terminal_text(shown, BRACKETS), re.M
        )


@pytest.mark.parametrize("side", [1, 2])
def test_weights_are_said_in_the_terminal(folder: Path, side: int) -> None:
    text = terminal.terminal_text(load(*[folder / "hostile"] * side, "--mask", "weights"), BRACKETS)
    assert re.search(r"⟦[^⟧]+\|\d", text)
    if side == 2:
        assert "100.0% of" in text and "kappa 1.000" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{hostile}"], "--out FILE.html or --terminal"),
        (["{hostile}", "--terminal", "--mask", "none"], "--mask: .*no column 'none'"),
        (["{hostile}", "--terminal", "--mask", "question"], "--mask: column 'question' of .* holds string"),
        (["{hostile}", "--terminal", "--mask", "prompt_token_ids"], "2 weights for .* response tokens"),
        (["{hostile}", "--terminal", "--data.max_samples", "0"], "--data.max_samples: 0 must be at least 1"),
        (["{hostile}", "--out", "{hostile}"], "--out: .* is a directory"),
        (["{hostile}", "--out", "/no/such/place.html"], "--out: there is no directory '/no/such'"),
        (["{hostile}", "{hostile}", "{hostile}", "--terminal"], "data sets: .* is too much"),
        (["/no/such", "--terminal"], "no Parquet file at '/no/such'"),
        (
            ["{hostile}", "--terminal", "--model.model_name_or_path", "/no/such"],
            "--model.model_name_or_path: cannot load '/no/such'",
        ),
        (
            ["{hostile}", "--terminal", "--model.model_name_or_path", "{other}"],
            "differs from the one that .* was annotated",
        ),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    view_data.FAMILIES["unigram"]().save_pretrained(tmp_path)
    given = [argument.format(hostile=folder / "hostile", other=tmp_path) for argument in arguments]
    with pytest.raises(ValueError, match=message) as raised:
        view.main(given)
    assert "\n" not in str(raised.value)


def test_ids_may_be_numbers(folder: Path, tmp_path: Path) -> None:
    table = pq.read_table(folder / "hostile")
    table = table.set_column(table.schema.get_field_index(records.ID), records.ID, pa.array(range(len(table))))
    pq.write_table(table, tmp_path / "numbered.parquet")
    shown = load(tmp_path / "numbered.parquet")
    assert [response.id for response in shown.responses] == [str(number) for number in range(len(table))]
    assert "\n1   " in terminal.terminal_text(shown, BRACKETS)
    assert "kappa 1.000" in terminal.terminal_text(load(*[tmp_path / "numbered.parquet"] * 2), BRACKETS)


def test_rows_without_a_mask_are_counted_and_the_rest_is_said(folder: Path, tmp_path: Path) -> None:
    made = view_data.FAMILIES["byte_level"]()
    rows = view_data.hostile(made)
    rows[1]["critical_mask"] = None
    path = view_data.write(tmp_path / "partly", rows, view_data.metadata(folder / "tokenizer", made), texts=True)
    data = open_data(path)
    found = read(data, made, max_samples=4)
    assert (len(found.responses), found.without_mask, found.total) == (3, 1, len(rows))
    text = terminal.terminal_text(found, BRACKETS)
    assert "left out: 1 rows without a mask" in text and f"the first 4 of {len(rows)} rows" in text
