"""Carry weights from one tokenizer's tokens to another's over the same text, by the characters of each token.

    before = layout(source, source_ids, text)
    after = layout(target, target_ids, text)
    weights = carry(before, weights, after)

Each target token takes the largest weight of the source tokens with which it shares a character. So 0 and 1 stay 0 and
1, and no critical character is lost. Where boundaries differ, a mask grows and never shrinks. When weights are carried
on, for example back to the first tokenizer, they are the same as before exactly where each target token overlaps
source tokens of only one weight.
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
    """A row cannot be carried. The text is the reason, and is the same for all rows with this reason."""


@dataclass(frozen=True)
class Layout:
    """Where the T tokens of a response lie in its text."""

    text: str
    spans: list[tuple[int, int]]  # (T,) first character, and one after the last; the end token's is after the text

    @property
    def ended(self) -> bool:
        """Whether the last token is a special token, which ends the response."""
        return bool(self.spans) and self.spans[-1] == (len(self.text), len(self.text) + 1)


def layout(tokenizer: Any, token_ids: Sequence[int], text: str) -> Layout:
    """Find where tokens lie in the text that they spell.

    Args:
        tokenizer: of the `transformers` API.
        token_ids: (T,) a response, with its end token if there is one.
        text: the decoded tokens, or the same with whitespace before it. That whitespace belongs to the first token:
            some decoders leave out the space at the beginning of a text.

    Raises:
        NotCarried: a special token is not the last one, or the tokens spell another text.
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
    """The columns that hold a number for each response token, in every row that has a value there.

    Args:
        data: the data set; it is read once.
        columns: the columns to look at. Columns of token ids, and columns without lists of numbers, are skipped.

    Returns:
        Each such column, and whether its numbers are weights (not integers, all >= 0). Weights can be carried to other
        tokens; other numbers say nothing about other tokens.
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
    """The layout of tokens that are the same on both sides: each token counts as one character."""
    return Layout(" " * count, [(index, index + 1) for index in range(count)])


def spread(tokens: Layout, weights: Sequence[float]) -> list[float]:
    """Convert weights of tokens to weights of characters: the largest of the tokens that a character belongs to.

    Args:
        tokens: T tokens.
        weights: (T,) one per token.

    Returns:
        (C + 1,) one per character, and one for the end token, 0 if there is none.
    """
    character_weights = [0.0] * (len(tokens.text) + 1)
    for (start, end), weight in zip(tokens.spans, weights, strict=True):
        for index in range(start, end):
            character_weights[index] = max(character_weights[index], weight)
    return character_weights


def gather(characters: Sequence[float], tokens: Layout) -> list[float]:
    """Convert weights of characters, (C + 1,), to weights of tokens, (T,): the largest in each token, 0 if empty."""
    return [max(characters[start:end], default=0.0) for start, end in tokens.spans]


def carry(source: Layout, weights: Sequence[float], target: Layout) -> list[float]:
    """Convert (T,) weights of source tokens to weights of the target's tokens over the same text.

    Raises:
        ValueError: the texts differ.
    """
    if source.text != target.text:
        raise ValueError(f"{source.text!r:.80} is not {target.text!r:.80}")
    return gather(spread(source, weights), target)
