"""A mathematical expression as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

MAX_EXPONENT = 10_000  # limit of a number's decimal exponent


class Unreadable(ValueError):
    """The tokens are not an expression."""


@dataclass(frozen=True)
class Node:
    """An operation and its operands: numbers, letters, other operations."""

    op: str
    args: tuple[Any, ...] = ()

    @property
    def nodes(self) -> Iterator[Node]:
        """This node and all nodes below it."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack += [arg for arg in node.args if isinstance(arg, Node)]

    @property
    def letters(self) -> frozenset[str]:
        """The names of its variables."""
        return frozenset(str(node.args[0]) for node in self.nodes if node.op == "letter")


def number(value: Fraction | int) -> Node:
    """A constant."""
    return Node("number", (Fraction(value),))


def decimal(text: str) -> Fraction:
    """The value of digits, with or without a decimal point and a decimal exponent."""
    mantissa, _, exponent = text.partition("e")
    if exponent and abs(int(exponent)) >= MAX_EXPONENT:
        raise Unreadable("too large a decimal exponent")
    return Fraction(mantissa.rstrip(".") or "0") * Fraction(10) ** int(exponent or 0)
