"""Forms that contain no other forms: times, numbers in other bases, quantities with their units, words."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from openrlhf_cft.verify.expression import parse
from openrlhf_cft.verify.forms import (
    EMPTY_SET,
    Based,
    Clock,
    Form,
    Quantity,
    Words,
)
from openrlhf_cft.verify.nodes import Node, Unreadable, number
from openrlhf_cft.verify.notation import FUNCTIONS, Token
from openrlhf_cft.verify.number_words import number_in_words
from openrlhf_cft.verify.units import (
    MULTIPLES,
    NONE,
    Unit,
    is_currency,
    is_measure,
    is_symbol,
    read_unit,
    singular,
)
from openrlhf_cft.verify.value import exact

MAX_UNITS = 8  # positions in an expression where a unit is tried
_ARTICLES = frozenset("a an the".split())


_CLOCK = re.compile(r"(\d{1,2})(?::(\d\d)(?::00)?)?(?:([ap])\.?m\.?|inthe(morning|afternoon|evening))?(?:sharp)?")
_BASES = {name: base for base, name in enumerate("two three four five six seven eight nine ten".split(), 2)}


_NOT_THERE = Words(("does", "not", "exist"))
_PHRASES: dict[str, Form] = {
    **dict.fromkeys(("no solution", "no solutions", "empty set", "the empty set", "null set"), EMPTY_SET),
    **dict.fromkeys(("dne", "does not exist", "doesn ' t exist"), _NOT_THERE),
}


def read_clock(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    """A time of day: `7:30`, `7:30 p.m.`, `3 PM`, `15:00`, noon."""
    text = "".join(token.text for token in of[:12] if token.text not in "{}").lower()
    if text in ("noon", "midnight"):
        return Clock(12, 0, "p" if text == "noon" else "a")
    match = _CLOCK.fullmatch(text)
    if match is None or not (match[2] or match[3] or match[4]) or int(match[1]) > 24 or int(match[2] or 0) > 59:
        return None
    half = match[3] or {"morning": "a", "afternoon": "p", "evening": "p"}.get(match[4] or "", "")
    hour = int(match[1])
    if hour > 12 and not half:
        return Clock(hour - 12, int(match[2] or 0), "p")
    return Clock(hour, int(match[2] or 0), half)


def read_based(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    """Digits with a base: `101_2`, `(101)_{2}`, `101_{\\text{two}}`, `101 base 2`."""
    texts = [token.text.lower() for token in of if token.text not in "{}()"]
    if len(texts) == 4 and texts[1] == "_" and texts[2] == "base":
        texts.pop(2)
    if len(texts) != 3 or texts[1] not in ("_", "base") or not texts[0].isalnum() or not texts[0][0].isdigit():
        return None
    base = {**_BASES, **{name: int(name) for name in [texts[2]] if name.isdecimal()}}.get(texts[2])
    return Based(texts[0], str(base)) if base is not None and 1 < base <= 36 else None


def read_quantity(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    """An expression, possibly with a currency before it or a unit after it."""
    currency: Unit = NONE
    negative = of[0].text == "-" and len(of) > 2
    start = 1 if negative else 0
    if is_currency(of[start]):
        currency = read_unit(of[start : start + 1]) or NONE
        dot = start + 1 < len(of) and of[start + 1].text == "."  # Rs. 50
        of = [*of[:start], *of[start + 1 + dot :]]
        if not of:
            return None
    of = _endless(_degrees(of))
    for cut in (*itertools.islice(_unit_starts(of), MAX_UNITS), len(of)):
        value, unit = of[:cut], of[cut:]
        factor = 1
        if unit and unit[0].kind == "word" and unit[0].text.lower() in MULTIPLES:
            factor, unit = MULTIPLES[unit[0].text.lower()], unit[1:]
        read_as = read_unit(unit)
        if read_as is None or (read_as and currency and read_as != currency):
            continue
        try:
            node = parse(value)
        except Unreadable:
            continue
        if unit and unit[0].kind == "letter" and not unit[0].prose and exact(node) is None:
            continue  # 2x m is a product
        if factor != 1:
            node = Node("*", (node, number(factor)))
        return Quantity(node, read_as or currency)
    return None


def _endless(of: Sequence[Token]) -> Sequence[Token]:
    """`0.333...` as the repeating decimal that it means, if its last three digits are the same; else as it is."""
    texts = [token.text for token in of]
    if len(of) < 2 or of[0].kind != "number" or texts[1:] not in (["ldots"], [".", ".", "."]):
        return of
    digits = texts[0].partition(".")[2]
    if len(digits) < 3 or len(set(digits[-3:])) > 1:
        return of
    fixed = texts[0].rstrip(digits[-1])
    return [Token("number", fixed), Token("macro", "overline"), Token("number", digits[-1])]


def _degrees(of: Sequence[Token]) -> Sequence[Token]:
    """Replace a degree sign at the end, or before words, by a word. Elsewhere it is part of the expression."""
    texts = [token.text for token in of]
    if any(token.kind == "macro" and token.text in FUNCTIONS for token in of):
        return of
    for place in range(1, len(of) - 1):
        length = 4 if texts[place + 1 : place + 4] == ["{", "circ", "}"] else 2 if texts[place + 1] == "circ" else 0
        if of[place].text != "^" or not length:
            continue
        behind = of[place + length :]
        if not behind or behind[0].kind in ("word", "letter"):
            scale = {"C": "celsius", "F": "fahrenheit"}.get(behind[0].text if behind else "")
            word = Token("word", scale or "degree", gap=True, prose=True)
            return [*of[:place], word, *behind[1 if scale else 0 :]]
    return of


def _unit_starts(of: Sequence[Token]) -> Iterator[int]:
    """Positions where a unit may begin: the first word, the sign of a unit, or the symbol of one after a number."""
    for place, token in enumerate(of):
        if place == 0:
            continue
        if token.kind == "word" and (token.prose or len(token.text) > 3 or is_measure(token) or token.gap):
            yield place
            return
        if token.text in ("%", "$", "€", "£", "¢") and token.kind == "mark":
            yield place
        if token.kind == "letter" and token.prose:
            yield place
            return
        if token.kind == "macro" and token.text in ("sec", "min", "Omega") and place == len(of) - 1:
            yield place
        if is_symbol(token) and (token.gap or of[place - 1].text == "/"):
            yield place
        if token.text == "/" and place + 1 < len(of) and (of[place + 1].kind == "word" or of[place + 1].prose):
            yield place
            return


def read_words(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    """Words and punctuation only; words for a number are that number."""
    if not any(token.kind == "word" for token in of):
        return None
    if any(token.kind == "macro" or (token.kind == "mark" and token.text not in ".,'-!?()") for token in of):
        return None
    words = [token.text.lower() for token in of if token.kind != "mark"]
    value = number_in_words(words)
    if value is not None:
        return Quantity(number(value))
    return Words(tuple(singular(word) for word in words if word not in _ARTICLES) or tuple(words))


def read_phrase(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    """Fixed phrases that mean the same as other words or as a sign, such as `no solution`."""
    return _PHRASES.get(" ".join(token.text.lower() for token in of)) if len(of) < 6 else None
