"""What an answer can be: a value with its unit, a time, several values, an interval, an equation, a matrix, words ...

`verify.reading` makes these forms, and `verify.comparison` compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from openrlhf_cft.verify.nodes import Node
from openrlhf_cft.verify.units import NONE, Unit

FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}  # relation signs read from the other side


@dataclass(frozen=True)
class Raw:
    """A notation that is not read any further."""

    key: tuple[str, ...]


@dataclass(frozen=True)
class Words:
    """Text: lower-case words, without articles."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Quantity:
    """A value, and the unit beside it."""

    value: Node
    unit: Unit = NONE


@dataclass(frozen=True)
class Based:
    """Digits in a base that is not ten."""

    digits: str
    base: str


@dataclass(frozen=True)
class Clock:
    """A time of day."""

    hour: int
    minute: int
    half: str  # "a" (a.m.), "p" (p.m.), or "" if not given


@dataclass(frozen=True)
class Ratio:
    """a : b, or more terms."""

    terms: tuple[Form, ...]


@dataclass(frozen=True)
class Listing:
    """Several answers: a list (in any order), a set, or a tuple. `joint` joins a list: "and", "or", or ","."""

    kind: Literal["list", "set", "tuple"]
    items: tuple[Form, ...]
    joint: str = ","


@dataclass(frozen=True)
class Interval:
    """All numbers between two."""

    low: Form
    high: Form
    closed: tuple[bool, bool]


@dataclass(frozen=True)
class Union:
    """Sets with \\cup between them."""

    parts: tuple[Form, ...]


@dataclass(frozen=True)
class Builder:
    """{name | condition}."""

    name: tuple[str, ...]
    condition: Form


@dataclass(frozen=True)
class Relation:
    """Sides with relation signs between them: `x = 3`, `1 < x \\le 2`. A side may be empty (`> 5`)."""

    sides: tuple[Form, ...]
    signs: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]  # notation of the sides


@dataclass(frozen=True)
class Matrix:
    """Rows of equal length, and the marks around them: brackets of any kind, or bars."""

    rows: tuple[tuple[Form, ...], ...]
    bars: bool


Form = Raw | Words | Quantity | Based | Clock | Ratio | Listing | Interval | Union | Builder | Relation | Matrix

EMPTY_SET = Listing("set", ())
