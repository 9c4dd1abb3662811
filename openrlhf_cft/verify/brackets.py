"""Brackets in tokens: which ones belong together, and which tokens are outside of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from openrlhf_cft.verify.notation import Token

_OPEN = {"(": ")", "[": "]", "{": "}"}


def balanced(of: Sequence[Token]) -> bool:
    """Whether the LaTeX braces match, and brackets of all kinds open and close equally often."""
    depth = 0
    for token in of:
        if token.kind == "mark":
            depth += (token.text in _OPEN) - (token.text in _OPEN.values())
            if depth < 0:
                return False
    return depth == 0


def matching(of: Sequence[Token], start: int) -> int:
    """The index of the bracket that closes the one at `start`; -1: none. An interval may close with another kind."""
    depth = 0
    for place in range(start, len(of)):
        token = of[place]
        depth += opens(token) - _closes(token)
        if depth == 0:
            return place
    return -1


def opens(token: Token) -> bool:
    """Whether a bracket, a brace or an environment begins here."""
    return (token.kind == "mark" and token.text in _OPEN) or (token.kind == "macro" and token.text in ("{", "begin"))


def _closes(token: Token) -> bool:
    return (token.kind == "mark" and token.text in _OPEN.values()) or (
        token.kind == "macro" and token.text in ("}", "end")
    )


def outside_of(of: Sequence[Token]) -> Iterator[tuple[int, Token]]:
    """The tokens outside of all brackets, with their indices."""
    depth = 0
    for place, token in enumerate(of):
        depth -= _closes(token)
        if depth == 0 and not opens(token) and not _closes(token):
            yield place, token
        depth += opens(token)


def split_at(of: Sequence[Token], places: Sequence[int]) -> list[Sequence[Token]]:
    """The tokens between these indices."""
    edges = [-1, *places, len(of)]
    return [of[start + 1 : end] for start, end in itertools.pairwise(edges)]


def matching_environment(texts: Sequence[str]) -> int:
    r"""The index of the `\end` that belongs to the first `\begin`; -1 if there is none."""
    depth = 0
    for place, text in enumerate(texts):
        depth += (text == "begin") - (text == "end")
        if depth == 0:
            return place
    return -1
