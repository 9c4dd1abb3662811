"""An annotated row as a conversation in ShareGPT's layout, with character spans instead of token weights.

    turns(row, question_column(data))           # [{"from": "human", "value": "How many ..."}]
    spans(pieces(tokenizer, ids), weights_T)    # [Span(start=4, end=9, weight=1.0)]

Invariants:

- Spans count the characters of the response. They are in order and do not overlap.
- Consecutive tokens of equal weight are one span. A character that is spread over several tokens has the largest of
  their weights.
- A token without text, such as the end of the turn, is a span of its own. Its start equals its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from openrlhf_cft.data.annotated import AnnotatedData, Row
from openrlhf_cft.data.records import ANNOTATION_COLUMNS, ID, PROMPT
from openrlhf_cft.data.token_text import Piece
from openrlhf_cft.errors import InputError

ROLES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


@dataclass(frozen=True)
class Span:
    """Consecutive characters with the same weight, which is above 0."""

    start: int  # the first one
    end: int  # one after the last one
    weight: float


def spans(pieces_T: Sequence[Piece], weights_T: Sequence[float]) -> list[Span]:
    """Convert weights of tokens to spans of characters.

    Args:
        pieces_T: (T,) the pieces that `token_text.pieces` returned.
        weights_T: (T,) weights, at least 0.
    """
    text = len(pieces_T)  # after the number of any token
    heaviest: dict[tuple[int, int], float] = {}  # by place: a character and `text`, or the number of a token before it
    for token, (piece, weight) in enumerate(zip(pieces_T, weights_T, strict=True)):
        places = [(character, text) for character in range(piece.start, piece.end)] or [(piece.start, token)]
        for place in places:
            heaviest[place] = max(weight, heaviest.get(place, 0.0))
    marked = []
    for (weight, kind), group in groupby(sorted(heaviest), lambda place: (heaviest[place], place[1])):
        run = list(group)
        if weight > 0:
            marked.append(Span(run[0][0], run[-1][0] + (kind == text), weight))
    return marked


def question_column(data: AnnotatedData) -> str | None:
    """The column of the question, or of its messages, that the chat template rendered; None if there is none."""
    source = _rendering(data.metadata)
    key = source.get("input_key")
    if not source.get("apply_chat_template") or key is None:
        return None
    if f"source_{key}" in data.schema.names:  # annotation renames a column whose name it needs
        return f"source_{key}"
    return key if key in data.schema.names and key not in ANNOTATION_COLUMNS else None


def _rendering(metadata: dict[str, Any]) -> dict[str, Any]:
    """How the prompts were rendered: by the annotator, or by `masks transfer` after it."""
    transferred = metadata.get("transferred") or {}
    rendering = transferred.get("rendering") or (transferred and _rendering(transferred.get("metadata", {})))
    return dict(rendering or metadata.get("source", {}))  # of an earlier transfer, before the annotator's


def turns(row: Row, column: str | None) -> list[dict[str, str]]:
    """The turns before the response.

    Args:
        row: a row that has the column.
        column: a column of texts, or of lists of `role` and `content`; None: the rendered prompt as one turn.

    Raises:
        InputError: the value is neither; names the row.
    """
    value: Any = row[column or PROMPT]
    if isinstance(value, str):
        return [{"from": "human", "value": value}]
    try:
        earlier_turns = [{"from": ROLES[message["role"]], "value": message["content"]} for message in value]
        if earlier_turns and all(isinstance(turn["value"], str) for turn in earlier_turns):
            return earlier_turns
    except (KeyError, TypeError):
        pass
    raise InputError(f"row {row[ID]!r}: {value!r:.80} in column {column!r} is neither a text nor messages of text")
