"""Which expressions only name the quantity that is asked for: the x of `x = 5`, the `area` of `area = 12`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from openrlhf_cft.verify.forms import (
    Form,
    Listing,
    Quantity,
    Ratio,
    Raw,
    Relation,
    Words,
)

# f(x), P(A|B), y_1(t)
_FUNCTION = re.compile(r"\\?[A-Za-z]{1,12}(?:_\{?\w{1,12}\}?)?'{0,3}\([A-Za-z\\,0-9|+-]{1,20}\)")
_IN_NAMES = re.compile(r"[A-Za-z]+|[_{}(),'|:]|\\(?:angle|triangle|min|max|overline|vec)")


def has_letters(side: Form) -> bool:
    """Whether a side holds a variable."""
    return isinstance(side, Quantity) and bool(side.value.letters)


def is_name(side: Form, notation: Sequence[str]) -> bool:
    r"""Whether a side of an equation is a name: `x`, `v_0`, `f(x)`, `AB`, `(x, y)`, `a : b`, `\angle A`, words."""
    if isinstance(side, Quantity):
        text = "".join(notation)
        return side.value.op in _LETTERS or (text.isalpha() and text.isupper()) or bool(_FUNCTION.fullmatch(text))
    if isinstance(side, Listing):
        return bool(side.items) and all(
            isinstance(item, Quantity) and item.value.op in _LETTERS for item in side.items
        )
    if isinstance(side, Ratio):
        return all(has_letters(term) for term in side.terms)
    return isinstance(side, Words) or (
        isinstance(side, Raw) and bool(notation) and all(_IN_NAMES.fullmatch(text) for text in notation)
    )


_LETTERS = ("letter", "i", "e")


def names_a_quantity(side: Form, notation: Sequence[str]) -> bool:
    """Whether a side may name what was asked for: a name, or an expression of several letters such as `a + b`. An
    expression of one letter, such as `2x` or `x^2`, is part of an equation that is not solved yet."""
    if is_name(side, notation):
        return True
    return (
        isinstance(side, Quantity)
        and len(side.value.letters) > 1
        and not any(node.op == "number" for node in side.value.nodes)
    )


def names_a_value(relation: Relation) -> bool:
    """Whether this is `x = 5`, or a chain of equations that begins with a name."""
    signs = set(relation.signs)
    return (signs == {"="} or relation.signs in (("in",), ("approx",))) and is_name(
        relation.sides[0], relation.names[0]
    )
