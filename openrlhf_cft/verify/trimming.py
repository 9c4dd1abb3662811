"""Remove the tokens that only surround an answer: braces, the dot, `the answer is`, `about`, a remark."""

from __future__ import annotations

from collections.abc import Sequence

from openrlhf_cft.verify.brackets import matching
from openrlhf_cft.verify.notation import Token

_HEDGES = frozenset("about approximately approx around roughly exactly only just simply".split())


def trimmed(of: Sequence[Token]) -> Sequence[Token]:
    """The tokens without outer braces, without the sentence's dot, and without words such as `about` or `roughly`."""
    changed = True
    while changed and of:
        changed = False
        if of[-1].text in (".", ",", ";") and of[-1].kind == "mark" and not _abbreviates(of):
            of, changed = of[:-1], True
        elif of[0].text in (":", ";", ",") and of[0].kind == "mark":
            of, changed = of[1:], True
        elif of[0].text == "{" and of[0].kind == "mark" and matching(of, 0) == len(of) - 1:
            of, changed = of[1:-1], True
        elif of[0].kind == "word" and of[0].text.lower() in _HEDGES and len(of) > 1:
            of, changed = of[1:], True
        elif of[0].kind == "macro" and of[0].text == "approx" and len(of) > 1:
            of, changed = of[1:], True
        elif (length := _announcement(of)) and len(of) > length:
            of, changed = of[length:], True
        elif (length := _remark(of)) and len(of) > length:
            of, changed = of[:-length], True
    return of


def _announcement(of: Sequence[Token]) -> int:
    """The number of tokens that only announce the answer: `The answer is`, `Answer:`."""
    words = [token.text.lower() for token in of[:5]]
    start = 1 if words[:1] == ["the"] else 0
    start += words[start : start + 1] in (["final"], ["correct"])
    if words[start : start + 1] == ["answer"] and words[start + 1 : start + 2] in (["is"], [":"], ["="]):
        return start + 2
    return 0


def _remark(of: Sequence[Token]) -> int:
    """The number of tokens in a remark in brackets at the end: `5 (approximately)`."""
    if of[-1].text != ")":
        return 0
    start = next((place for place in range(len(of) - 1, -1, -1) if of[place].text == "("), 0)
    inside = of[start + 1 : -1]
    return len(of) - start if start and inside and all(t.kind == "word" and len(t.text) > 3 for t in inside) else 0


def _abbreviates(of: Sequence[Token]) -> bool:
    """Whether the last dot belongs to a.m. or p.m."""
    return of[-1].text == "." and len(of) > 2 and of[-2].text.lower() == "m" and of[-3].text == "."
