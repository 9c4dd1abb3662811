"""Whether two forms are the same answer. The form of the gold answer decides which other forms can equal it.

An answer of any other form is wrong, unless both have the same notation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from openrlhf_cft.verify.forms import (
    EMPTY_SET,
    Based,
    Builder,
    Clock,
    Form,
    Interval,
    Listing,
    Matrix,
    Quantity,
    Ratio,
    Raw,
    Relation,
    Union,
    Words,
)
from openrlhf_cft.verify.names import has_letters, names_a_quantity, names_a_value
from openrlhf_cft.verify.quantities import (
    fraction_of,
    is_identity,
    near,
    never,
    same_balance,
    same_clock,
    same_quantity,
    same_ratio,
    same_words,
    turned,
)
from openrlhf_cft.verify.regions import Region, as_region
from openrlhf_cft.verify.value import EXACT, Tolerance


def same_form(gold: Form, answer: Form, tolerance: Tolerance = EXACT) -> bool:
    """Whether two forms are equal. The form of the gold answer decides which other forms may stand for it."""
    if gold == answer:
        return not isinstance(gold, Raw) or bool(gold.key)
    region = as_region(gold)
    if region is not None and same_region(region, as_region(answer)):
        return True
    if isinstance(answer, Relation) and not isinstance(gold, Relation | Raw) and concludes(answer, gold, tolerance):
        return True
    for kind, compare in _COMPARISONS.items():
        if isinstance(gold, kind):
            return compare(gold, answer, tolerance)
    return False


# --- several values --------------------------------------------------------------------------------------------------


def _in_order(gold: Sequence[Form], answer: Sequence[Form], tolerance: Tolerance) -> bool:
    return len(gold) == len(answer) and all(
        same_form(one, other, tolerance) for one, other in zip(gold, answer, strict=True)
    )


def _in_any_order(
    gold: Sequence[Any], answer: Sequence[Any], tolerance: Tolerance, same_item: Callable[..., bool] = same_form
) -> bool:
    """Whether each gold item has an answer of its own. Greedy is enough: equality is transitive, except for units."""
    if len(gold) != len(answer):
        return False
    left = list(answer)
    for one in gold:
        partner = next((place for place, other in enumerate(left) if same_item(one, other, tolerance)), None)
        if partner is None:
            return False
        left.pop(partner)
    return True


def _same_listing(gold: Listing, answer: Form, tolerance: Tolerance) -> bool:
    if gold.kind == "tuple":
        return _same_tuple(gold, answer, tolerance)
    if not isinstance(answer, Listing):
        return False
    if answer.kind == "tuple":
        return gold.kind == "list" and _in_order(gold.items, answer.items, tolerance)
    if not gold.items:
        return answer == EMPTY_SET
    return _in_any_order(gold.items, _with_names(answer), tolerance)


def _same_tuple(gold: Listing, answer: Form, tolerance: Tolerance) -> bool:
    """The same values in the same order: as a tuple, a vector, or (x, y) as x = 3, y = 4."""
    if isinstance(answer, Matrix) and not answer.bars and 1 in (len(answer.rows), len(answer.rows[0])):
        return _in_order(gold.items, [cell for row in answer.rows for cell in row], tolerance)
    if not isinstance(answer, Listing):
        return False
    if answer.kind == "set":
        return len(answer.items) == 1 and same_form(gold, answer.items[0], tolerance)
    if answer.kind == "tuple":
        return _in_order(gold.items, answer.items, tolerance)
    values = [item.sides[1] for item in answer.items if isinstance(item, Relation) and names_a_value(item)]
    return len(values) == len(answer.items) and _in_order(gold.items, values, tolerance)


def _with_names(answer: Listing) -> Sequence[Form]:
    """`x = -2, 5` with the name before each value."""
    first = answer.items[0] if answer.items else None
    if not isinstance(first, Relation) or first.signs != ("=",):
        return answer.items
    return [
        Relation((first.sides[0], item), ("=",), (first.names[0], ())) if isinstance(item, Quantity) else item
        for item in answer.items
    ]


def _same_matrix(gold: Matrix, answer: Form, tolerance: Tolerance) -> bool:
    if isinstance(answer, Listing) and answer.kind == "tuple" and 1 in (len(gold.rows), len(gold.rows[0])):
        return not gold.bars and _in_order([cell for row in gold.rows for cell in row], answer.items, tolerance)
    return (
        isinstance(answer, Matrix)
        and gold.bars == answer.bars
        and len(gold.rows) == len(answer.rows)
        and all(_in_order(one, other, tolerance) for one, other in zip(gold.rows, answer.rows, strict=True))
    )


def _same_builder(gold: Builder, answer: Form, tolerance: Tolerance) -> bool:
    return (
        isinstance(answer, Builder)
        and gold.name == answer.name
        and same_form(gold.condition, answer.condition, tolerance)
    )


def _same_interval(gold: Interval, answer: Form, tolerance: Tolerance) -> bool:
    return (
        isinstance(answer, Interval)
        and gold.closed == answer.closed
        and _in_order((gold.low, gold.high), (answer.low, answer.high), tolerance)
    )


def _same_union(gold: Union, answer: Form, tolerance: Tolerance) -> bool:
    return isinstance(answer, Union) and _in_any_order(gold.parts, answer.parts, tolerance)


# --- relations -------------------------------------------------------------------------------------------------------


def concludes(answer: Relation, gold: Form, tolerance: Tolerance) -> bool:
    r"""Whether a chain of equations ends in the gold answer: `x = 5`, `5 = x`, `3 + 7 = 10`, `A = \pi r^2 = 25\pi`.

    The first side may be a name. The last side, and the other sides without letters, must equal the gold answer.
    """
    if any(sign not in ("=", "approx", "in") for sign in answer.signs) or "in" in answer.signs[1:]:
        return False
    sides = list(answer.sides)
    if names_a_quantity(sides[0], answer.names[0]):
        sides = [side for side in sides[1:-1] if not has_letters(side)] + sides[-1:]
    elif len(sides) == 2 and names_a_quantity(sides[1], answer.names[1]):
        sides = sides[:1]
    if answer.signs == ("in",) and isinstance(gold, Quantity):  # x is in {5}
        sides = [s.items[0] if isinstance(s, Listing) and s.kind == "set" and len(s.items) == 1 else s for s in sides]
    if answer.signs[-1] == "approx" and len(sides) > 1:
        return any(same_form(gold, side, tolerance) for side in sides) and near(sides)
    return all(same_form(gold, side, tolerance) for side in sides)


def _same_relation(gold: Relation, answer: Form, tolerance: Tolerance) -> bool:
    """The same equation or inequality, up to a constant factor. If the gold answer names a value, that value too."""
    if gold.signs == ("equiv",):
        return _same_congruence(gold, answer, tolerance)
    if not isinstance(answer, Relation):
        named = names_a_value(gold) or is_identity(gold)
        return named and not isinstance(gold.sides[-1], Raw) and same_form(gold.sides[-1], answer, tolerance)
    if answer.signs == ("approx",) and gold.signs == ("=",):
        answer = Relation(answer.sides, gold.signs, answer.names)
    if len(gold.signs) == 1 == len(answer.signs) and same_balance(gold, answer):
        return True
    if answer.names[0] == answer.names[-1] and gold.names[0] != gold.names[-1]:
        return False  # 5 = 5 says nothing
    if (
        fraction_of(answer.sides[0]) is not None
        and fraction_of(answer.sides[-1]) is not None
        and fraction_of(gold.sides[0]) is None
    ):
        return False  # nor does 1/2 = 0.5 for cos 60° = 1/2
    if is_identity(answer) and is_identity(gold):
        claims = [side for side in gold.sides if fraction_of(side) is None] or gold.sides
        if claims[0] not in answer.sides:
            return False  # nor does another sum of the same value
    return any(
        signs == gold.signs and _sides_in_order(gold, sides, tolerance)
        for signs, sides in ((answer.signs, answer.sides), turned(answer))
    )


def _same_congruence(gold: Relation, answer: Form, tolerance: Tolerance) -> bool:
    r"""`n \equiv 1 (mod 3)`: the same modulus, and remainders that differ by a multiple of it."""
    if not isinstance(answer, Relation) or answer.signs != gold.signs or len(answer.sides) != len(gold.sides):
        return False
    if len(gold.sides) < 3:
        return _sides_in_order(gold, answer.sides, tolerance)
    if not (same_form(gold.sides[0], answer.sides[0]) and same_form(gold.sides[2], answer.sides[2])):
        return False
    wanted, given, modulus = map(fraction_of, (gold.sides[1], answer.sides[1], gold.sides[2]))
    if wanted is not None and given is not None and modulus:
        return (wanted - given) % modulus == 0
    return same_form(gold.sides[1], answer.sides[1], tolerance)


def _sides_in_order(gold: Relation, sides: Sequence[Form], tolerance: Tolerance) -> bool:
    return len(sides) == len(gold.sides) and all(
        one == other if isinstance(one, Raw) else same_form(one, other, tolerance)
        for one, other in zip(gold.sides, sides, strict=True)
    )


# --- regions of the real line ----------------------------------------------------------------------------------------


def same_region(gold: Region, answer: Region | None) -> bool:
    """Whether both are the same intervals, in any order, of the same variable where both name one."""
    if answer is None or (gold[0] and answer[0] and gold[0] != answer[0]):
        return False
    return _in_any_order(gold[1], answer[1], EXACT, _same_interval)


_COMPARISONS: dict[type, Callable[[Any, Form, Tolerance], bool]] = {
    Quantity: same_quantity,
    Based: never,
    Clock: same_clock,
    Ratio: same_ratio,
    Listing: _same_listing,
    Words: same_words,
    Matrix: _same_matrix,
    Builder: _same_builder,
    Interval: _same_interval,
    Union: _same_union,
    Relation: _same_relation,
    Raw: never,
}
