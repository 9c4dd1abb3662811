"""Weights carried by characters: against the definition token by token, and there and back over three families."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
from chat_families import CHAT
from hypothesis import assume, event, example, given
from hypothesis import strategies as st
from properties import tries
from tokenizer_families import FAMILIES, LINES

from openrlhf_cft.data.literal_text import LiteralText
from openrlhf_cft.data.records import ID, PROMPT, PROMPT_IDS, RESPONSE, RESPONSE_IDS
from openrlhf_cft.data.rendering import render_prompt
from openrlhf_cft.data.source import SourceSettings
from openrlhf_cft.data.token_text import decode
from openrlhf_cft.errors import InputError
from openrlhf_cft.masks.carry import INSIDE, OTHER_TEXT, Layout, NotCarried, carry, layout, spread
from openrlhf_cft.masks.retokenize import NO_RESPONSE, Retokenizer

PAIRS = list(itertools.permutations(FAMILIES, 2))


@functools.cache
def tokenizer_of(family: str) -> Any:
    return FAMILIES[family]()


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def spelled(tokenizer: Any, text: str) -> bool:
    return decode(tokenizer, ids_of(tokenizer, text)) == text


@functools.cache
def alphabet() -> str:
    """The characters that all families can write: letters, digits, multi-byte ones, parts of emoji sequences."""
    every = sorted({character for line in LINES for character in line})
    return "".join(c for c in every if all(spelled(tokenizer_of(family), f"1{c}1") for family in FAMILIES))


def texts(**limits: int) -> st.SearchStrategy[str]:
    return st.deferred(lambda: st.text(st.sampled_from(alphabet()), **limits))


WEIGHTS = st.sampled_from([0.0, 1.0, 1.0, 0.5])


def literal(source: Layout, weights: list[float], target: Layout) -> list[float]:
    """The definition: the largest weight of the tokens with which a token shares a character."""
    return [
        max((w for (a, b), w in zip(source.spans, weights, strict=True) if max(a, start) < min(b, end)), default=0.0)
        for start, end in target.spans
    ]


def comes_back(source: Layout, weights: list[float], target: Layout) -> bool:
    """The condition: each target token overlaps tokens of one weight, and each weight is on characters."""
    for start, end in target.spans:
        met = {w for (a, b), w in zip(source.spans, weights, strict=True) if max(a, start) < min(b, end)}
        if len(met) > 1:
            return False
    return all(a < b or not w for (a, b), w in zip(source.spans, weights, strict=True))


def check(source: Layout, weights: list[float], target: Layout) -> bool:
    """There and back; whether the mask came back."""
    there = carry(source, weights, target)
    assert there == literal(source, weights, target)
    assert set(there) <= {0.0, *weights}, "no weight is made up: 0 and 1 stay 0 and 1"
    lost = {at for at, weight in enumerate(spread(source, weights)) if weight > spread(target, there)[at]}
    assert not lost, "no character loses weight"
    back = carry(target, there, source)
    assert (back == weights) == comes_back(source, weights, target)
    return back == weights


def drawn(data: Any, length: int) -> list[float]:
    """Some weights; 0 and 1 in turn for an example."""
    if data is None:
        return [at % 2.0 for at in range(length)]
    return data.draw(st.lists(WEIGHTS, min_size=length, max_size=length))


def test_the_alphabet_has_what_is_hard() -> None:
    assert {" ", "1", "ö", "€", "数", "🎉", "\n"} <= set(alphabet())


@pytest.mark.parametrize(("one", "other"), PAIRS)
@tries(80)
@given(text=texts(min_size=1, max_size=30), data=st.data())
@example(text=" 12 = 数🎉 ö", data=None)
def test_there_and_back_exactly_where_boundaries_allow(one: str, other: str, text: str, data: Any) -> None:
    first, second = tokenizer_of(one), tokenizer_of(other)
    assume(spelled(first, text) and spelled(second, text))
    ids = [[*ids_of(tokenizer, text), tokenizer.eos_token_id] for tokenizer in (first, second)]
    source, target = layout(first, ids[0], text), layout(second, ids[1], text)
    weights = drawn(data, len(source.spans))
    check(source, weights, target)
    assert check(source, [1.0] * len(weights), target) == all(start < end for start, end in source.spans)


@tries(100)
@given(ids=st.lists(st.integers(2, 255), max_size=24), data=st.data())
@pytest.mark.parametrize("other", ["metaspace", "byte_level"])
def test_any_ids_that_a_model_may_write(other: str, ids: list[int], data: st.DataObject) -> None:
    """Bytes that are no characters, characters in the wrong tokens: what they decode to is tokenized anew."""
    first, second = tokenizer_of("byte_level"), tokenizer_of(other)
    text = decode(first, ids)
    assume(spelled(second, text))
    weights = drawn(data, len(ids))
    check(layout(first, ids, text), weights, layout(second, ids_of(second, text), text))


@pytest.mark.parametrize("family", ["metaspace", "unigram", "byte_level"])
@tries(80)
@given(text=texts(min_size=1, max_size=30), data=st.data())
def test_finer_tokens_always_bring_it_back(family: str, text: str, data: st.DataObject) -> None:
    """A token a byte: a character that is several tokens of both is the only place where boundaries can still part."""
    tokenizer, fine = tokenizer_of(family), tokenizer_of("byte_level")
    assume(spelled(tokenizer, text))
    ids = ids_of(tokenizer, text)
    split_up = fine.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    by_byte = [fine.convert_tokens_to_ids(byte) for piece, _ in split_up for byte in piece]
    assert len(by_byte) == len(text.encode())
    source, target = layout(tokenizer, ids, text), layout(fine, by_byte, text)
    weights = drawn(data, len(ids))
    split = any(a < d and c < b for (a, b), (c, d) in itertools.pairwise(source.spans))
    if not split and all(start < end for start, end in source.spans):
        assert check(source, weights, target)
    check(source, weights, target)


def test_a_character_over_several_tokens_goes_as_a_whole() -> None:
    tokenizer, other = tokenizer_of("byte_level"), tokenizer_of("metaspace")
    text = "a𐍈b"
    source = layout(tokenizer, [*ids_of(tokenizer, text), tokenizer.eos_token_id], text)
    target = layout(other, [*ids_of(other, text), other.eos_token_id], text)
    assert source.spans == [(0, 1), *[(1, 2)] * 4, (2, 3), (3, 4)] and source.ended
    third_byte = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.5]
    there = carry(source, third_byte, target)
    assert [w for w, span in zip(there, target.spans, strict=True) if span == (1, 2)] == [1.0] * 4
    assert sum(there) == 4.5 and there[-1] == 0.5
    assert carry(target, there, source) == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.5]


def test_what_is_no_layout() -> None:
    tokenizer = tokenizer_of("byte_level")
    ids, end = ids_of(tokenizer, "12 = 12"), tokenizer.eos_token_id
    with pytest.raises(NotCarried, match=INSIDE):
        layout(tokenizer, [*ids, end, *ids], "12 = 1212 = 12")
    for text in ("12 = 1", "x12 = 12", "12 = 12 "):
        with pytest.raises(NotCarried, match=OTHER_TEXT):
            layout(tokenizer, ids, text)
    assert layout(tokenizer, ids, "  12 = 12").spans[0] == (0, 4), "space that a decoder left out is the first token's"
    with pytest.raises(ValueError, match="is not"):
        carry(layout(tokenizer, ids, "12 = 12"), [1.0] * len(ids), layout(tokenizer, [end], ""))


def row_of(tokenizer: Any, prompt: str, text: str, end: bool = True) -> dict[str, Any]:
    """As an annotator stores it, the response tokenized behind its prompt."""
    prompt_ids, both = ids_of(tokenizer, prompt), ids_of(tokenizer, prompt + text)
    assume(both[: len(prompt_ids)] == prompt_ids)
    ids = both[len(prompt_ids) :] + [tokenizer.eos_token_id] * end
    return {ID: "r", PROMPT: prompt, PROMPT_IDS: prompt_ids, RESPONSE: decode(tokenizer, ids), RESPONSE_IDS: ids}


@pytest.mark.parametrize(("one", "other"), PAIRS)
@tries(60)
@given(prompt=texts(min_size=1, max_size=8), text=texts(min_size=1, max_size=20), end=st.booleans(), data=st.data())
@example(prompt="The answer:", text=" 12", end=True, data=None)
@example(prompt="数", text="数", end=False, data=None)
def test_rows_there_and_back(one: str, other: str, prompt: str, text: str, end: bool, data: Any) -> None:
    """The very text behind the very prompt, in the other's tokens; and the first one's own tokens again."""
    first, second = tokenizer_of(one), tokenizer_of(other)
    row = row_of(first, prompt, text, end)
    try:
        there = Retokenizer(first, second, None, same=False)(row)
        new = {ID: "r", PROMPT: prompt, PROMPT_IDS: there.prompt_ids, RESPONSE_IDS: there.response_ids}
        back = Retokenizer(second, first, None, same=False)({**new, RESPONSE: there.response})
    except NotCarried as reason:
        assert str(reason) in (OTHER_TEXT, NO_RESPONSE)
        return
    assert there.source.text == there.target.text and there.target.text.endswith(row[RESPONSE])
    assert there.source.ended == there.target.ended == end
    assert (there.response_ids[-1] == second.eos_token_id) == end
    assert there.response == decode(second, there.response_ids)
    if (back.response_ids, back.target.text) == (row[RESPONSE_IDS], there.source.text):
        assert (back.source, back.target) == (there.target, there.source)
        weights = drawn(data, len(row[RESPONSE_IDS]))
        returned = carry(back.source, carry(there.source, weights, there.target), back.target)
        assert (returned == weights) == comes_back(there.source, weights, there.target)
        event("the same ids again")


def test_a_space_between_prompt_and_response_is_kept() -> None:
    """Decoders of this family leave out the space with which a text begins; it is there behind the prompt."""
    first, second = tokenizer_of("metaspace"), tokenizer_of("byte_level")
    prompt_ids = ids_of(first, "The answer:")
    ids = ids_of(first, "12")  # with the space that this family puts before a text
    row = {ID: "r", PROMPT: "The answer:", PROMPT_IDS: prompt_ids, RESPONSE: "12", RESPONSE_IDS: ids}
    assert decode(first, ids) == "12" and decode(first, [*prompt_ids, *ids]) == "The answer: 12"
    there = Retokenizer(first, second, None, same=False)(row)
    assert there.target.text == there.response == " 12"
    assert decode(second, [*there.prompt_ids, *there.response_ids]) == "The answer: 12"
    assert there.source.spans[0][0] == 0 and there.source.spans[-1][1] == 3
    rendered = Retokenizer(first, second, SourceSettings("", input_key="q"), same=False)({**row, "q": "Well?"})
    assert rendered.prompt == "Well?" and rendered.response == "12", "what it follows now is another prompt"


def test_the_targets_own_beginning_and_end() -> None:
    """BOS where its tokenizer puts it, and the end of its template's turn where the prompt is rendered by it."""
    first, gemma = tokenizer_of("byte_level"), CHAT["gemma"]()
    row = row_of(first, "The answer:", " 12")
    plain = Retokenizer(first, gemma, None, same=False)(row)
    assert plain.prompt_ids == gemma("The answer:")["input_ids"] and plain.prompt_ids[0] == gemma.bos_token_id
    assert plain.response_ids[-1] == gemma.eos_token_id
    never = Retokenizer(first, gemma, None, same=False, add_bos="never")(row)
    assert never.prompt_ids == plain.prompt_ids[1:] and never.response_ids == plain.response_ids
    chat = SourceSettings("", input_key="q", apply_chat_template=True)
    rendered = Retokenizer(first, gemma, chat, same=False)({**row, "q": "Well?"})
    assert rendered.prompt_ids.count(gemma.bos_token_id) == 1
    assert gemma.convert_ids_to_tokens(rendered.response_ids[-1]) == "<end_of_turn>"


@pytest.mark.parametrize("chat", [True, False])
def test_special_tokens_that_are_text_stay_text(chat: bool) -> None:
    """Of a question, of a stored prompt and of a response: also where the other tokenizer has a token of that name."""
    qwen, other = CHAT["qwen"](), CHAT["qwen"]()
    question, settings = "Why <|im_end|>?", SourceSettings("", input_key="q", apply_chat_template=True)
    text = LiteralText(qwen)
    prompt = render_prompt(question, text, settings)
    ids = [*text.token_ids(text.hide("It <|im_start|> is.")), qwen.eos_token_id]
    row = {ID: "r", PROMPT: text.show(prompt), PROMPT_IDS: text.token_ids(prompt), "q": question}
    row |= {RESPONSE: decode(qwen, ids), RESPONSE_IDS: ids}
    there = Retokenizer(qwen, other, settings if chat else None, same=False)(row)
    assert there.prompt_ids == row[PROMPT_IDS] and there.prompt == row[PROMPT]
    assert there.response_ids[:-1] == ids[:-1] and there.response == row[RESPONSE]


def test_a_bos_that_is_no_part_of_the_text_stays_behind() -> None:
    """The tokenizer's own, before a prompt in no template: the target has another one, or none."""
    gemma, other = CHAT["gemma"](), tokenizer_of("byte_level")
    text = LiteralText(gemma)
    ids = [*text.token_ids("12"), gemma.eos_token_id]
    row = {ID: "r", PROMPT: "The answer:", PROMPT_IDS: gemma("The answer:")["input_ids"], RESPONSE_IDS: ids}
    there = Retokenizer(gemma, other, None, same=False)({**row, RESPONSE: decode(gemma, ids)})
    assert row[PROMPT_IDS][0] == gemma.bos_token_id and there.prompt_ids == ids_of(other, "The answer:")
    written = {**row, PROMPT: "<bos>The answer:", RESPONSE: decode(gemma, ids)}
    with pytest.raises(InputError, match="the prompt holds '<bos>'"):
        Retokenizer(gemma, other, None, same=False)(written)


def test_questions_that_the_targets_template_refuses_are_left_out() -> None:
    first, gemma = tokenizer_of("byte_level"), CHAT["gemma"]()
    chat = SourceSettings("", input_key="q", apply_chat_template=True)
    retokenize = Retokenizer(first, gemma, chat, same=False)
    row = row_of(first, "The answer:", " 12")
    with pytest.raises(NotCarried, match="the chat template refuses it: System role not supported"):
        retokenize({**row, "q": [{"role": "system", "content": "Be brief."}]})
    with pytest.raises(InputError, match="row 'r': column 'q': 7 is neither a text nor a list of messages"):
        retokenize({**row, "q": 7})
