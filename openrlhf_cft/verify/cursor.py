"""Tokens of an expression, taken one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from openrlhf_cft.verify.nodes import Unreadable
from openrlhf_cft.verify.notation import FUNCTIONS, MAX_PRODUCT, Token


class Cursor:
    """The position up to which an expression has been read."""

    def __init__(self, of: Sequence[Token]) -> None:
        self._tokens = [letter for token in of for letter in _letters(token)]
        self._at = 0
        self._depth = 0
        self._bars = 0  # open absolute values

    @property
    def next(self) -> Token | None:
        """The next token; None at the end."""
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self) -> Token:
        token = self.next
        if token is None:
            raise Unreadable("the expression ends too early")
        self._at += 1
        return token

    def _is(self, *texts: str, ahead: int = 0) -> bool:
        place = self._at + ahead
        return place < len(self._tokens) and self._tokens[place].text in texts and not self._tokens[place].prose

    def _expect(self, text: str) -> None:
        if not self._is(text):
            raise Unreadable(f"{text!r} is missing")
        self._at += 1

    def _braces_text(self) -> str:
        self._expect("{")
        text = self._take().text
        self._expect("}")
        return text


def _letters(token: Token) -> list[Token]:
    """A word as a product of its letters, if it is short and not the name of a function; else as it is."""
    if token.kind != "word" or token.prose or token.text in FUNCTIONS or len(token.text) > MAX_PRODUCT:
        return [token]
    return [Token("letter", letter, token.gap and not place) for place, letter in enumerate(token.text)]
