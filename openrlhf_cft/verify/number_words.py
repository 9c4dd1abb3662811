"""Numbers in English words: twelve, twenty-five, one hundred and two, three quarters.

number_in_words(["twenty", "five"])     # Fraction(25)
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

_ONES = {
    name: value
    for value, name in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
}
_TENS = {
    name: 10 * value for value, name in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4}
_PARTS |= {"fifth": 5, "fifths": 5, "sixth": 6, "sixths": 6, "eighth": 8, "eighths": 8, "tenth": 10, "tenths": 10}
NUMBER_WORDS = frozenset({*_ONES, *_TENS, *_LARGE, *_PARTS, "hundred"})


def number_in_words(words: Sequence[str]) -> Fraction | None:
    """The value of lower-case words; None if they are not a number."""
    if not words or not any(word in NUMBER_WORDS for word in words):
        return None
    if words[-1] in _PARTS:
        above = _whole(words[:-1]) if words[:-1] not in ([], ["a"], ["one"]) else 1
        return None if above is None else Fraction(above, _PARTS[words[-1]])
    value = _whole(words)
    return None if value is None else Fraction(value)


def _whole(words: Sequence[str]) -> int | None:
    total = group = 0
    last = ""
    for word in words:
        if word in _ONES and last not in _ONES:
            group += _ONES[word]
        elif word in _TENS and last not in _ONES and last not in _TENS:
            group += _TENS[word]
        elif word == "hundred" and group and group < 100:
            group *= 100
        elif word in _LARGE and group:
            total, group = total + group * _LARGE[word], 0
        elif word == "and" and last in ("hundred", *_LARGE):
            pass
        else:
            return None
        last = word
    return total + group if last and last != "and" else None
