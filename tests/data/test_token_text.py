"""Which characters a token stands for, exactly, in three families of tokenizers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from properties import tries
from tokenizer_families import FAMILIES

from openrlhf_cft.data import token_text as tokens
from openrlhf_cft.data.token_text import Kind, decode, kind_of, pieces, token_text


@functools.cache
def tokenizer_of(family: str) -> Any:
    return FAMILIES[family]()


WRITTEN = st.text(st.sampled_from("ab 12+=.\n\té€数🎉👩‍\u202e<&"), max_size=30)
IDS = st.lists(st.integers(0, 255), max_size=24)


@pytest.mark.parametrize("family", FAMILIES)
@tries(60)
@given(text=WRITTEN)
@example(text="a🎉b")
@example(text=" 👩‍👩‍👧 = 12")
def test_pieces_join_to_the_text(family: str, text: str) -> None:
    tokenizer = tokenizer_of(family)
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    check(tokenizer, ids)


@pytest.mark.parametrize("family", FAMILIES)
@tries(60)
@given(ids=IDS)
@example(ids=[128, 0, 96])  # byte_level: a special token between the two bytes of one character
def test_any_ids_that_a_model_may_write(family: str, ids: list[int]) -> None:
    check(tokenizer_of(family), ids)


def check(tokenizer: Any, ids: list[int]) -> None:
    found, text = pieces(tokenizer, ids), decode(tokenizer, ids)
    assert len(found) == len(ids)
    assert "".join(piece.text for piece in found if not piece.special) == text
    assert all(0 <= piece.start <= piece.end <= len(text) for piece in found)
    assert [piece.special for piece in found] == [token in tokens.special_ids(tokenizer) for token in ids]
    assert [(piece.start, piece.end) for piece in found] == spans(tokenizer, ids, text)


def spans(tokenizer: Any, ids: list[int], text: str) -> list[tuple[int, int]]:
    """The literal way: all tokens before each are decoded again. A special token spans nothing, wherever it stands."""
    special = tokens.special_ids(tokenizer)
    found = tokens._prefix_spans(tokenizer, ids, text)
    return [(start, start if token in special else end) for token, (start, _, end) in zip(ids, found, strict=True)]


def test_a_character_of_several_tokens_belongs_to_each() -> None:
    tokenizer = tokenizer_of("byte_level")
    ids = [*tokenizer("a𐍈b")["input_ids"], tokenizer.eos_token_id]
    found = pieces(tokenizer, ids)
    assert len(found) == 7  # four bytes between two letters and the end
    assert [(piece.start, piece.end) for piece in found] == [(0, 1), *[(1, 2)] * 4, (2, 3), (3, 3)]
    assert [piece.text for piece in found] == ["a", "", "", "", "𐍈", "b", "</s>"]
    assert [piece.partial for piece in found] == [False, True, True, True, False, False, False]
    assert [str(piece.kind) for piece in found] == ["word"] * 6 + ["end"]


def test_a_long_text_is_read_in_windows() -> None:
    tokenizer = tokenizer_of("byte_level")
    ids = tokenizer("Zwölf 𐍈 and 数学. " * 200)["input_ids"]
    text = decode(tokenizer, ids)
    assert tokens._windowed_spans(tokenizer, ids, text) == tokens._prefix_spans(tokenizer, ids, text)


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize(
    "text", ["数学の答えは好", "👩‍👩‍👧‍👦", "Zwölf 數 👨‍👩‍👧 ", "x = 12, so it is. ", " \n\t", "好"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_time_is_linear(family: str, text: str, cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in tokens that are decoded, also where the last character is cut."""
    tokenizer, decoded = tokenizer_of(family), 0

    def counting(tokenizer: Any, token_ids: Sequence[int]) -> str:
        nonlocal decoded
        decoded += len(token_ids)
        return decode(tokenizer, token_ids)

    monkeypatch.setattr(tokens, "decode", counting)
    ids = tokenizer(text * 300, add_special_tokens=False)["input_ids"]
    ids = ids[: len(ids) - cut]
    assert len(pieces(tokenizer, ids)) == len(ids)
    assert decoded < 60 * (len(ids) + 1)


def test_bytes_that_are_no_text_are_one_character_each() -> None:
    tokenizer = tokenizer_of("metaspace")
    three = tokenizer.convert_tokens_to_ids(["<0xE5>", "<0xA5>", "<0xBD>"])  # 好
    ids = [*tokenizer("a")["input_ids"], *three, *three[:2]]
    assert decode(tokenizer, ids) == "a" + 5 * "\ufffd"
    spans_T = [(piece.start, piece.end) for piece in pieces(tokenizer, ids)]
    assert spans_T[-6:] == [(n, n + 1) for n in range(6)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (" 12", Kind.DIGITS),
        ("x2", Kind.DIGITS),
        ("½", Kind.PUNCTUATION),
        ("²", Kind.DIGITS),
        (" is", Kind.WORD),
        ("\\frac", Kind.WORD),
        ("答", Kind.WORD),
        (" +", Kind.OPERATOR),
        ("-", Kind.OPERATOR),
        ("≤", Kind.OPERATOR),
        (" \n", Kind.WHITESPACE),
        (").", Kind.PUNCTUATION),
        ("🎉", Kind.PUNCTUATION),
        ("", Kind.PUNCTUATION),
    ],
)
def test_kinds(text: str, kind: Kind) -> None:
    assert kind_of(text) is kind


def test_the_text_of_another_token() -> None:
    tokenizer = tokenizer_of("metaspace")
    ids = tokenizer("The answer")["input_ids"]
    assert "".join(token_text(tokenizer, ids[:i], ids[i]) for i in range(len(ids))) == "The answer"
    assert token_text(tokenizer, ids, tokenizer.eos_token_id) == "</s>"
    byte = tokenizer_of("byte_level")
    assert token_text(byte, [], byte("𐍈")["input_ids"][0]) == "\ufffd"


def test_special_tokens_without_a_role_are_no_text_either() -> None:
    """As the headers of Llama 3's template: `decode` leaves them out, `all_special_ids` does not have them."""
    from tokenizers import AddedToken

    tokenizer = FAMILIES["byte_level"]()
    tokenizer.add_tokens([AddedToken("<head>", special=True), AddedToken("<think>", special=False)])
    head, think = tokenizer.convert_tokens_to_ids(["<head>", "<think>"])
    assert head not in tokenizer.all_special_ids and head in tokens.special_ids(tokenizer)
    found = pieces(tokenizer, [head, think, tokenizer.eos_token_id])
    assert [(piece.text, piece.special, piece.start, piece.end) for piece in found] == [
        ("<head>", True, 0, 0),
        ("<think>", False, 0, 7),
        ("</s>", True, 7, 7),
    ]
    assert token_text(tokenizer, [], head) == "<head>"
