"""Whether two plain forms are the same: quantities with their units, times, ratios, words, chemical balances."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from openrlhf_cft.verify.forms import (
    FLIPPED,
    Clock,
    Form,
    Quantity,
    Ratio,
    Relation,
    Words,
)
from openrlhf_cft.verify.nodes import Node, number
from openrlhf_cft.verify.units import DEGREE, PERCENT, compatible, scale
from openrlhf_cft.verify.value import Tolerance, exact, proportional, same

_ONE = number(1)
_HUNDREDTH = number(Fraction(1, 100))


_RADIANS = Node("/", (Node("pi"), number(180)))


def same_quantity(gold: Quantity, answer: Form, tolerance: Tolerance) -> bool:
    """The same value in the same unit; either may leave the unit out. 9 may be nine o'clock."""
    if isinstance(answer, Clock) and not answer.minute and answer.half:
        return not gold.unit and same(gold.value, number(answer.hour))
    if not isinstance(answer, Quantity):
        return False
    if not gold.unit or not answer.unit:
        factors = _implied_factors(gold, answer)
        return any(same(_times(gold.value, one), _times(answer.value, two), tolerance) for one, two in factors)
    if compatible(gold.unit, answer.unit):
        return same(gold.value, answer.value, tolerance)
    factor = scale(gold.unit, answer.unit)
    return factor is not None and same(gold.value, _times(answer.value, number(factor)), tolerance)


def _times(value: Node, factor: Node) -> Node:
    return value if factor is _ONE else Node("*", (value, factor))


def _implied_factors(gold: Quantity, answer: Quantity) -> list[tuple[Node, Node]]:
    """Pairs of factors for both values if one of them has no unit: 50% is 50 and 0.5, 60 degrees are pi/3."""
    factors = [(_ONE, _ONE)]
    for unit, factor in ((PERCENT, _HUNDREDTH), (DEGREE, _RADIANS)):
        for this, other, both in ((gold, answer, (factor, _ONE)), (answer, gold, (_ONE, factor))):
            if this.unit == unit and (unit is PERCENT or any(node.op == "pi" for node in other.value.nodes)):
                factors.append(both)
    return factors


def same_clock(gold: Clock, answer: Form, tolerance: Tolerance) -> bool:
    """The same time of day."""
    return (
        isinstance(answer, Clock)
        and (gold.hour % 12, gold.minute) == (answer.hour % 12, answer.minute)
        and gold.half in ("", answer.half)
    )


def same_ratio(gold: Ratio, answer: Form, tolerance: Tolerance) -> bool:
    """The same terms up to a factor. For two terms their quotient is equal, too."""
    if isinstance(answer, Clock) and not answer.half:  # 3:40 may be either
        answer = Ratio((Quantity(number(answer.hour)), Quantity(number(answer.minute))))
    terms = [term.value for term in gold.terms if isinstance(term, Quantity)]
    if isinstance(answer, Quantity):
        return len(terms) == 2 and not answer.unit and same(Node("/", (terms[0], terms[1])), answer.value, tolerance)
    if not isinstance(answer, Ratio) or len(answer.terms) != len(gold.terms):
        return False
    others = [term.value for term in answer.terms if isinstance(term, Quantity)]
    return len(others) == len(terms) and all(
        same(Node("*", (terms[0], other)), Node("*", (others[0], term)), tolerance)
        for term, other in zip(terms[1:], others[1:], strict=True)
    )


def same_words(gold: Words, answer: Form, tolerance: Tolerance) -> bool:
    """The same words in the same order."""
    return isinstance(answer, Words) and gold.words == answer.words


def never(gold: Form, answer: Form, tolerance: Tolerance) -> bool:
    """For forms that equal only the same notation, or a chain of equations that ends in it."""
    return False


def near(sides: Sequence[Form]) -> bool:
    """Whether all sides of an approximation are within a twentieth of the first."""
    values = [side.value for side in sides if isinstance(side, Quantity)]
    return len(values) == len(sides) and all(same(values[0], value, Tolerance(0.05)) for value in values[1:])


def is_identity(relation: Relation) -> bool:
    """Whether this is an equation without letters that holds."""
    left, right = relation.sides[0], relation.sides[-1]
    if relation.signs != ("=",) or not (isinstance(left, Quantity) and isinstance(right, Quantity)):
        return False
    return not left.value.letters and not right.value.letters and same(left.value, right.value)


def fraction_of(side: Form) -> Fraction | None:
    """The rational value of a side; None if it has none."""
    return exact(side.value) if isinstance(side, Quantity) else None


def turned(answer: Relation) -> tuple[tuple[str, ...], tuple[Form, ...]]:
    """The relation read from right to left: signs and sides. Both are empty if one of the signs cannot be turned."""
    if any(sign not in (*FLIPPED, "=", "!=") for sign in answer.signs):
        return (), ()
    return tuple(FLIPPED.get(sign, sign) for sign in reversed(answer.signs)), answer.sides[::-1]


def same_balance(gold: Relation, answer: Relation) -> bool:
    """Whether left side minus right side is the same in both, up to a factor (for an inequality, a positive one)."""
    balances = []
    for relation in (gold, answer):
        left, right = relation.sides[0], relation.sides[-1]
        if not (isinstance(left, Quantity) and isinstance(right, Quantity)) or left.unit or right.unit:
            return False
        balances.append(Node("+", (left.value, Node("-", (right.value,)))))
    if balances[0].letters != balances[1].letters or not balances[0].letters:
        return False
    sign, other = gold.signs[0], answer.signs[0]
    if sign == other == "=":
        return proportional(balances[0], balances[1]) is not None
    wanted = 1 if sign == other else -1 if FLIPPED.get(sign) == other else 0
    if not wanted or sign not in FLIPPED:
        return False
    ratio = proportional(balances[0], balances[1])
    return ratio is not None and getattr(ratio, "imag", 0) == 0 and ratio * wanted > 0
