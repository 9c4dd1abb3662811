r"""Remarks about the domain of an index behind an answer: `3n-1, n \in \mathbb{N}^*`, `[k\pi, k\pi+1] (k \in Z)`.

A remark may be left out, or be written in another way, but it may not name another domain.
"""

from __future__ import annotations

from collections.abc import Sequence

from openrlhf_cft.verify.brackets import outside_of, split_at
from openrlhf_cft.verify.notation import Token

Tokens = Sequence[Token]
_INDICES = frozenset("jklmnpqrst")  # letters that often count
_POSITIVE = ("N^*", "N_*", "N*", "N^+", "N_+", "N+", "Z^+", "Z_+", "Z+")
_DOMAINS = {"N": "natural", "Z": "whole", **dict.fromkeys(_POSITIVE, "positive")}
_MAX_DOMAIN = 9  # tokens in `\mathbb{N}^{*})`
_RESTRICTED = frozenset("< > <= >= != in notin approx equiv".split())  # a domain changes what these say


def without_domains(gold: Tokens, answer: Tokens) -> tuple[Tokens, Tokens] | None:
    """Both answers without their remarks about a domain; None if there is none, or if they do not agree."""
    wanted, given = _split(gold), _split(answer)
    if wanted is None and given is None:
        return None
    if wanted is not None and given is not None:
        return (wanted[0], given[0]) if wanted[1:] == given[1:] else None
    bare, letter, _ = wanted or given or ((), "", "")
    if letter not in _INDICES or not _holds_for_each(bare, letter):
        return None
    return (gold, bare) if wanted is None else (bare, answer)


def _split(of: Tokens) -> tuple[Tokens, str, str] | None:
    """An answer without its remark, the letter in it that the remark is about, and the name of the letter's domain."""
    first = max(2, len(of) - _MAX_DOMAIN - 1)
    place = next((p for p in range(len(of) - 1, first - 1, -1) if of[p].kind == "macro" and of[p].text == "in"), 0)
    if not place or of[place - 1].kind != "letter":
        return None
    letter, before = of[place - 1].text, of[place - 2].text
    end = len(of) - 1 if before == "(" and of[-1].text == ")" else len(of)
    if before not in (",", ";") and end == len(of):
        return None
    name = "".join(token.text for token in of[place + 1 : end] if token.text not in ("{", "}", "mathbb"))
    bare = of[: place - 2]
    bare = bare[:-1] if bare and bare[-1].text == "," and before == "(" else bare
    if name not in _DOMAINS or len(bare) < 2 or not any(token.text == letter for token in bare):
        return None
    return bare, letter, _DOMAINS[name]


def _holds_for_each(bare: Tokens, letter: str) -> bool:
    """Whether the answer is values, or names with their values. An equation or inequality in the letter is neither."""
    outside = list(outside_of(bare))
    if any(token.text in _RESTRICTED for _, token in outside):
        return False
    parts = split_at(bare, [place for place, token in outside if token.text in (",", ";") and token.kind == "mark"])
    return all(_is_named(part, letter) for part in parts)


def _is_named(part: Tokens, letter: str) -> bool:
    """Whether a part without `=` is a value, or the side before its first `=` is a name: `a_n = 3n`, `x = k`."""
    equals = next((place for place, token in outside_of(part) if token.text == "="), None)
    if equals is None:
        return True
    name = part[:equals]
    if not name or name[0].kind != "letter" or name[0].text == letter:
        return False
    named = all(token.kind == "letter" or token.text in "_{}()" for token in name)
    return len(name) == 1 or (named and name[1].text in ("_", "("))
