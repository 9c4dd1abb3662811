r"""Regions of the real line that an interval, an inequality or a set builder describes.

as_region(read(tokens(r"\{x \mid x > 2\}")))      # ((), (the interval from 2 to infinity,))
"""

from __future__ import annotations

from collections.abc import Sequence

from openrlhf_cft.verify.forms import FLIPPED, Builder, Form, Interval, Listing, Quantity, Raw, Relation, Union
from openrlhf_cft.verify.nodes import Node
from openrlhf_cft.verify.notation import tokens
from openrlhf_cft.verify.reading import read

Region = tuple[tuple[str, ...], tuple[Interval, ...]]  # the variable, if one is named, and intervals

_INFINITY = Quantity(Node("infty"))
_MINUS_INFINITY = Quantity(Node("-", (Node("infty"),)))
_REALS = [read(tokens(text)) for text in (r"\mathbb{R}", r"\text{all real numbers}", r"\text{all reals}")]


def as_region(form: Form) -> Region | None:
    r"""The intervals that a form describes: `[0, 1)`, `x > 2`, `\{x | x \le 1\}`, `x \ne 3`; None for other forms."""
    if isinstance(form, Interval):
        return (), (form,)
    if isinstance(form, Listing):
        if form.kind == "tuple" and len(form.items) == 2:
            return (), (Interval(form.items[0], form.items[1], (False, False)),)
        return _joined(form.items) if form.joint == "or" else _common(form.items)
    if isinstance(form, Union):
        return _joined(form.parts)
    if isinstance(form, Builder):
        region = as_region(form.condition)
        return ((), region[1]) if region is not None and region[0] in ((), form.name) else None
    if isinstance(form, Relation):
        return _solution(form)
    return ((), (Interval(_MINUS_INFINITY, _INFINITY, (False, False)),)) if form in _REALS else None


def _joined(parts: Sequence[Form]) -> Region | None:
    regions = [as_region(part) for part in parts]
    names = {region[0] for region in regions if region is not None}
    if None in regions or len(names) != 1:
        return None
    return names.pop(), tuple(interval for region in regions if region is not None for interval in region[1])


def _common(parts: Sequence[Form]) -> Region | None:
    """The region of two inequalities, a lower and an upper bound: `x > 5 and x < 7`."""
    regions = [as_region(part) for part in parts if isinstance(part, Relation)]
    if len(parts) != 2 or len(regions) != 2 or regions[0] is None or regions[1] is None:
        return None
    if regions[0][0] != regions[1][0] or not len(regions[0][1]) == len(regions[1][1]) == 1:
        return None
    above, below = sorted((regions[0][1][0], regions[1][1][0]), key=lambda of: of.low == _MINUS_INFINITY)
    if above.high != _INFINITY or below.low != _MINUS_INFINITY or above.low == _MINUS_INFINITY:
        return None
    return regions[0][0], (Interval(above.low, below.high, (above.closed[0], below.closed[1])),)


def _solution(relation: Relation) -> Region | None:
    """The region of an inequality. One side is a variable; no other side may be one."""
    signs, sides = relation.signs, relation.sides
    places = [place for place, side in enumerate(sides) if isinstance(side, Quantity) and side.value.op == "letter"]
    if len(places) != 1 or any(isinstance(side, Raw) for side in sides):
        return None
    place = places[0]
    name = relation.names[place]
    if signs == ("in",) and place == 0:
        region = as_region(sides[1])
        return None if region is None else (name, region[1])
    if signs == ("!=",):
        other = sides[1 - place]
        return name, (
            Interval(_MINUS_INFINITY, other, (False, False)),
            Interval(other, _INFINITY, (False, False)),
        )
    if any(sign not in FLIPPED for sign in signs) or len(signs) > 2 or (len(signs) == 2 and place != 1):
        return None
    low: tuple[Form, bool] = (_MINUS_INFINITY, False)
    high: tuple[Form, bool] = (_INFINITY, False)
    for index, sign in enumerate(signs):
        bound = sides[index] if index < place else sides[index + 1]
        sign = FLIPPED[sign] if index < place else sign  # as `variable sign bound`
        if sign[0] == ">":
            low = (bound, sign == ">=")
        else:
            high = (bound, sign == "<=")
    if len(signs) == 2 and (low[0] is _MINUS_INFINITY or high[0] is _INFINITY):
        return None
    return name, (Interval(low[0], high[0], (low[1], high[1])),)
