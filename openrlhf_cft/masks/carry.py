"""Weights of one tokenizer's tokens to another's, over the same text, by the characters that each token stands for.

    before = layout(source, source_ids, text)
    after = layout(target, target_ids, text)
    weights = carry(before, weights, after)

Each target token takes the largest weight of the source tokens with which it shares a character. So 0 and 1 stay 0 and
1, no critical character is lost, and where boundaries differ a mask grows, never shrinks. Carried on to a third
tokenizing of the text, back to the first for one, it is as it was exactly where each target token overlaps source
tokens of one weight only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openrlhf_cft.data.annotated import AnnotatedData, holds_numbers
from openrlhf_cft.data.records import PROMPT_IDS, RESPONSE_IDS
from openrlhf_cft.data.token_text import decode, pieces

INSIDE = "a special token is inside the response"
OTHER_TEXT = "the tokens do not spell the text"


class NotCarried(ValueError):
    """A row that cannot be carried; the text is the reason, the same for all such rows."""


@dataclass(frozen=True)
class Layout:
    """Where the T tokens of a response lie in its text."""

    text: str
    spans: list[tuple[int, int]]  # (T,) first character, and behind the last; the end's is one behind the text

    @property
    def ended(self) -> bool:
        """Whether the last token is a special one, which ends the response."""
        return bool(self.spans) and self.spans[-1] == (len(self.text), len(self.text) + 1)


def layout(tokenizer: Any, token_ids: Sequence[int], text: str) -> Layout:
    """Where tokens lie in a text that they spell.

    Args:
        tokenizer: of the `transformers` API.
        token_ids: (T,) a response, its end included where there is one.
        text: what they decode to; or that with whitespace before it, which belongs to the first token: some decoders
            leave out the space with which a text begins.

    Raises:
        NotCarried: a special token is not the last one, or they spell something else.
    """
    pieces_T = pieces(tokenizer, token_ids)
    if any(piece.special for piece in pieces_T[:-1]):
        raise NotCarried(INSIDE)
    spelled = decode(tokenizer, token_ids)
    lead = len(text) - len(spelled)
    if not text.endswith(spelled) or (lead and not text[:lead].isspace()):
        raise NotCarried(OTHER_TEXT)
    spans = [
        (len(text), len(text) + 1) if piece.special else (piece.start + lead, piece.end + lead) for piece in pieces_T
    ]
    if lead and spans and not pieces_T[0].special:
        spans[0] = (0, spans[0][1])
    return Layout(text, spans)


def per_token(data: AnnotatedData, columns: Sequence[str]) -> dict[str, bool]:
    """Columns that hold a number for each response token, in every row that has a value there.

    Args:
        data: is read once.
        columns: to look at; those of token ids, and what holds no lists of numbers, are passed over.

    Returns:
        Each such column, and whether its numbers are weights (not integers, all >= 0): those can be carried to other
        tokens, and the rest says nothing of them.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    fields = [data.schema.field(name) for name in columns if name not in (PROMPT_IDS, RESPONSE_IDS)]
    numeric = {
        field.name: not pa.types.is_integer(field.type.value_type) for field in fields if holds_numbers(field.type)
    }
    measured: set[str] = set()
    for batch in data.batches([RESPONSE_IDS, *numeric]) if numeric else ():
        lengths = pc.list_value_length(batch.column(RESPONSE_IDS))
        for name in list(numeric):
            values = batch.column(name)
            if pc.any(pc.not_equal(pc.list_value_length(values), lengths)).as_py():
                del numeric[name]
                continue
            numbers = pc.cast(pc.list_flatten(values), pa.float64())
            measured |= {name} if len(numbers) else set()
            fit = pc.all(pc.and_(pc.is_finite(numbers), pc.greater_equal(numbers, 0)), skip_nulls=False).as_py()
            numeric[name] = numeric[name] and bool(fit)
    return {name: weights for name, weights in numeric.items() if name in measured}


def one_by_one(count: int) -> Layout:
    """Tokens that are the same on both sides, each as if it were a character."""
    return Layout(" " * count, [(index, index + 1) for index in range(count)])


def spread(tokens: Layout, weights: Sequence[float]) -> list[float]:
    """Weights of tokens to weights of characters: the largest of the tokens that a character belongs to.

    Args:
        tokens: T tokens.
        weights: (T,) one a token.

    Returns:
        (C + 1,) one a character, and one of the end, 0 where there is none.
    """
    character_weights = [0.0] * (len(tokens.text) + 1)
    for (start, end), weight in zip(tokens.spans, weights, strict=True):
        for index in range(start, end):
            character_weights[index] = max(character_weights[index], weight)
    return character_weights


def gather(characters: Sequence[float], tokens: Layout) -> list[float]:
    """Weights of characters, (C + 1,), to weights of tokens, (T,): the largest of each one's, 0 where it has none."""
    return [max(characters[start:end], default=0.0) for start, end in tokens.spans]


def carry(source: Layout, weights: Sequence[float], target: Layout) -> list[float]:
    """(T,) weights of source tokens to those of the target's tokens of the same text.

    Raises:
        ValueError: the texts differ.
    """
    if source.text != target.text:
        raise ValueError(f"{source.text!r:.80} is not {target.text!r:.80}")
    return gather(spread(source, weights), target)
