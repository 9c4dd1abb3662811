"""Whether a comma separates thousands or items: `1,234` is one number, `(1,234)` and `\\{1,234\\}` hold two."""

from __future__ import annotations

from collections.abc import Sequence

from openrlhf_cft.verify.brackets import outside_of
from openrlhf_cft.verify.notation import Token, key


def ungrouped(of: Sequence[Token]) -> list[Token]:
    """`1,234` as two numbers."""
    separate: list[Token] = []
    outside = {place for place, _ in outside_of(of)}
    for place, token in enumerate(of):
        if not token.parts or place not in outside:
            separate.append(token)
            continue
        for part in token.parts:
            separate += [Token("number", part, token.gap), Token("mark", ",")]
        separate.pop()
    return separate


def has_spaced_commas(of: Sequence[Token]) -> bool:
    """Whether commas with a space after them separate the items: `1,234, 5`."""
    marks = [place for place, token in outside_of(of) if token.text == "," and token.kind == "mark"]
    return any(place + 1 < len(of) and of[place + 1].gap for place in marks)


def same_notation(gold: Sequence[Token], answer: Sequence[Token]) -> bool:
    """Whether two answers are written alike. In brackets `1,234` is not written like `1234`."""
    if key(gold) != key(answer):
        return False
    if not any(token.text in ("(", "[", "{") and (token.kind == "macro" or token.text != "{") for token in gold):
        return True
    return all(one.parts == other.parts for one, other in zip(gold, answer, strict=True))
