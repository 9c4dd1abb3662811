r"""Whether an answer is the gold answer: the form of the gold answer says which others are equal to it.

    equal("x = 0.5", r"\frac12")      # True: a name may stand before a value
    equal("50", r"\frac12")           # False

An answer of a form that the gold answer's does not know is wrong, unless both are the same notation.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from openrlhf_cft.verify.expression import Node, number
from openrlhf_cft.verify.forms import (
    EMPTY_SET,
    FLIPPED,
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
from openrlhf_cft.verify.notation import Token, key, tokens
from openrlhf_cft.verify.options import lettered, same_option
from openrlhf_cft.verify.reading import read
from openrlhf_cft.verify.regions import Region, as_region
from openrlhf_cft.verify.units import DEGREE, PERCENT, compatible, scale
from openrlhf_cft.verify.value import EXACT, Tolerance, exact, proportional, same

MAX_CHARS = 4_000  # longer than any answer; beyond it only the same notation is equal

_PLAIN_NUMBER = re.compile(r"[-+]?(?:(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)", re.ASCII)
# f(x), P(A|B), y_1(t)
_FUNCTION = re.compile(r"\\?[A-Za-z]{1,12}(?:_\{?\w{1,12}\}?)?'{0,3}\([A-Za-z\\,0-9|+-]{1,20}\)")
_IN_NAMES = re.compile(r"[A-Za-z]+|[_{}(),'|:]|\\(?:angle|triangle|min|max|overline|vec)")


def equal(answer: str, gold: str, tolerance: Tolerance = EXACT) -> bool:
    """Whether an extracted answer equals the gold answer. Cached: most rollouts of a prompt end in a few answers.

    Args:
        answer: of any content.
        gold: LaTeX, plain text or Unicode.
        tolerance: the difference of numbers that is still equal.
    """
    if len(gold) > MAX_CHARS or len(answer) > MAX_CHARS:  # nor is it kept
        return bool(gold.strip()) and answer.split() == gold.split()
    return _equal(answer, gold, tolerance)


def forget() -> None:
    """Empty the cache of `equal`, to measure it."""
    _equal.cache_clear()


@functools.lru_cache(maxsize=4096)
def _equal(answer: str, gold: str, tolerance: Tolerance) -> bool:
    numbers = plain_number(answer), plain_number(gold)
    if numbers[0] is not None and numbers[1] is not None:  # most answers
        return abs(numbers[0] - numbers[1]) <= tolerance.of(numbers[1])
    wanted, given = _meaningful(tokens(gold)), _meaningful(tokens(answer))
    if not wanted:
        return False
    if key(wanted) == key(given) or _same_word(wanted, given):
        return True
    compare = functools.partial(_same, tolerance=tolerance)
    option = lettered(wanted)
    return same_option(option, given, compare) if option is not None else compare(wanted, given)


def plain_number(text: str) -> Fraction | None:
    """The value of an integer or decimal number, with or without thousands separators; None for all else."""
    text = text.strip()
    if len(text) > MAX_CHARS or not _PLAIN_NUMBER.fullmatch(text):
        return None
    return Fraction(text.replace(",", "").removesuffix("."))


def _same(gold: Sequence[Token], answer: Sequence[Token], tolerance: Tolerance) -> bool:
    form = read(gold)
    return same_form(form, read(answer, several=isinstance(form, Listing)), tolerance)


def _meaningful(of: list[Token]) -> list[Token]:
    """Without the sentence's dot; nothing where there are only marks without a meaning."""
    if all(token.kind == "mark" and token.text in "$.,;:{}" for token in of):
        return []
    while of and of[-1].kind == "mark" and of[-1].text == "." and not (len(of) > 2 and of[-3].text == "."):
        of = of[:-1]
    return of


def _same_word(gold: Sequence[Token], answer: Sequence[Token]) -> bool:
    """Whether both are one word, with or without a capital: Tom and tom, but not GM and Gm."""
    if len(gold) != 1 or len(answer) != 1 or gold[0].kind != "word" or answer[0].kind != "word":
        return False
    return gold[0].text.lower() == answer[0].text.lower() and gold[0].text[1:] == answer[0].text[1:]


def same_form(gold: Form, answer: Form, tolerance: Tolerance = EXACT) -> bool:
    """Whether two forms are equal, that of the gold answer deciding what may stand for it."""
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


# --- values ----------------------------------------------------------------------------------------------------------

_ONE = number(1)
_HUNDREDTH = number(Fraction(1, 100))
_RADIANS = Node("/", (Node("pi"), number(180)))


def _same_quantity(gold: Quantity, answer: Form, tolerance: Tolerance) -> bool:
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
    """What both may be multiplied by, where one of them has no unit: 50% is 50 and 0.5, 60 degrees are pi/3."""
    factors = [(_ONE, _ONE)]
    for unit, factor in ((PERCENT, _HUNDREDTH), (DEGREE, _RADIANS)):
        for this, other, both in ((gold, answer, (factor, _ONE)), (answer, gold, (_ONE, factor))):
            if this.unit == unit and (unit is PERCENT or any(node.op == "pi" for node in other.value.nodes)):
                factors.append(both)
    return factors


def _same_clock(gold: Clock, answer: Form, tolerance: Tolerance) -> bool:
    return (
        isinstance(answer, Clock)
        and (gold.hour % 12, gold.minute) == (answer.hour % 12, answer.minute)
        and gold.half in ("", answer.half)
    )


def _same_ratio(gold: Ratio, answer: Form, tolerance: Tolerance) -> bool:
    """The same terms up to a factor; of two terms also their quotient."""
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


def _same_words(gold: Words, answer: Form, tolerance: Tolerance) -> bool:
    return isinstance(answer, Words) and gold.words == answer.words


def _never(gold: Form, answer: Form, tolerance: Tolerance) -> bool:
    """Of forms that only the same notation, or a chain that ends in it, is equal to."""
    return False


# --- several values --------------------------------------------------------------------------------------------------


def _in_order(gold: Sequence[Form], answer: Sequence[Form], tolerance: Tolerance) -> bool:
    return len(gold) == len(answer) and all(
        same_form(one, other, tolerance) for one, other in zip(gold, answer, strict=True)
    )


def _in_any_order(
    gold: Sequence[Any], answer: Sequence[Any], tolerance: Tolerance, same_item: Callable[..., bool] = same_form
) -> bool:
    """Whether each gold item has an answer of its own. Greedy is enough: being equal is transitive, but for units."""
    if len(gold) != len(answer):
        return False
    left = list(answer)
    for one in gold:
        found = next((place for place, other in enumerate(left) if same_item(one, other, tolerance)), None)
        if found is None:
            return False
        left.pop(found)
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
    values = [item.sides[1] for item in answer.items if isinstance(item, Relation) and _names_a_value(item)]
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

    The first side may be a name; of the others, those without letters and the last one have to be the gold answer.
    """
    if any(sign not in ("=", "approx", "in") for sign in answer.signs) or "in" in answer.signs[1:]:
        return False
    sides = list(answer.sides)
    if names_a_quantity(sides[0], answer.names[0]):
        sides = [side for side in sides[1:-1] if not _has_letters(side)] + sides[-1:]
    elif len(sides) == 2 and names_a_quantity(sides[1], answer.names[1]):
        sides = sides[:1]
    if answer.signs == ("in",) and isinstance(gold, Quantity):  # x is in {5}
        sides = [s.items[0] if isinstance(s, Listing) and s.kind == "set" and len(s.items) == 1 else s for s in sides]
    if answer.signs[-1] == "approx" and len(sides) > 1:
        return any(same_form(gold, side, tolerance) for side in sides) and _near(sides)
    return all(same_form(gold, side, tolerance) for side in sides)


def _has_letters(side: Form) -> bool:
    return isinstance(side, Quantity) and bool(side.value.letters)


def _near(sides: Sequence[Form]) -> bool:
    """Whether all sides of an approximation are within a twentieth of the first."""
    values = [side.value for side in sides if isinstance(side, Quantity)]
    return len(values) == len(sides) and all(same(values[0], value, Tolerance(0.05)) for value in values[1:])


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
        return all(_has_letters(term) for term in side.terms)
    return isinstance(side, Words) or (
        isinstance(side, Raw) and bool(notation) and all(_IN_NAMES.fullmatch(text) for text in notation)
    )


_LETTERS = ("letter", "i", "e")


def names_a_quantity(side: Form, notation: Sequence[str]) -> bool:
    """Whether a side may be what was asked for: a name, or an expression of several letters such as `a + b`. One of
    one letter, such as `2x` or `x^2`, is part of an equation that is still to be solved."""
    if is_name(side, notation):
        return True
    return (
        isinstance(side, Quantity)
        and len(side.value.letters) > 1
        and not any(node.op == "number" for node in side.value.nodes)
    )


def _names_a_value(relation: Relation) -> bool:
    """Whether this is `x = 5`, or a chain of equations that begins with a name."""
    signs = set(relation.signs)
    return (signs == {"="} or relation.signs in (("in",), ("approx",))) and is_name(
        relation.sides[0], relation.names[0]
    )


def _same_relation(gold: Relation, answer: Form, tolerance: Tolerance) -> bool:
    """An equation or inequality: the same one, up to a constant factor; of one that names a value, the value too."""
    if gold.signs == ("equiv",):
        return _same_congruence(gold, answer, tolerance)
    if not isinstance(answer, Relation):
        named = _names_a_value(gold) or _is_identity(gold)
        return named and not isinstance(gold.sides[-1], Raw) and same_form(gold.sides[-1], answer, tolerance)
    if answer.signs == ("approx",) and gold.signs == ("=",):
        answer = Relation(answer.sides, gold.signs, answer.names)
    if len(gold.signs) == 1 == len(answer.signs) and _same_balance(gold, answer):
        return True
    if answer.names[0] == answer.names[-1] and gold.names[0] != gold.names[-1]:
        return False  # 5 = 5 says nothing
    if _exact(answer.sides[0]) is not None and _exact(answer.sides[-1]) is not None and _exact(gold.sides[0]) is None:
        return False  # nor does 1/2 = 0.5 for cos 60° = 1/2
    return any(
        signs == gold.signs and _sides_in_order(gold, sides, tolerance)
        for signs, sides in ((answer.signs, answer.sides), _turned(answer))
    )


def _is_identity(relation: Relation) -> bool:
    """Whether this is an equation without letters that holds."""
    left, right = relation.sides[0], relation.sides[-1]
    if relation.signs != ("=",) or not (isinstance(left, Quantity) and isinstance(right, Quantity)):
        return False
    return not left.value.letters and not right.value.letters and same(left.value, right.value)


def _same_congruence(gold: Relation, answer: Form, tolerance: Tolerance) -> bool:
    r"""`n \equiv 1 (mod 3)`: the same modulus, and remainders that differ by a multiple of it."""
    if not isinstance(answer, Relation) or answer.signs != gold.signs or len(answer.sides) != len(gold.sides):
        return False
    if len(gold.sides) < 3:
        return _sides_in_order(gold, answer.sides, tolerance)
    if not (same_form(gold.sides[0], answer.sides[0]) and same_form(gold.sides[2], answer.sides[2])):
        return False
    wanted, given, modulus = map(_exact, (gold.sides[1], answer.sides[1], gold.sides[2]))
    if wanted is not None and given is not None and modulus:
        return (wanted - given) % modulus == 0
    return same_form(gold.sides[1], answer.sides[1], tolerance)


def _exact(side: Form) -> Fraction | None:
    return exact(side.value) if isinstance(side, Quantity) else None


def _turned(answer: Relation) -> tuple[tuple[str, ...], tuple[Form, ...]]:
    """The relation read from right to left; no signs where one of them cannot be."""
    if any(sign not in (*FLIPPED, "=", "!=") for sign in answer.signs):
        return (), ()
    return tuple(FLIPPED.get(sign, sign) for sign in reversed(answer.signs)), answer.sides[::-1]


def _sides_in_order(gold: Relation, sides: Sequence[Form], tolerance: Tolerance) -> bool:
    return len(sides) == len(gold.sides) and all(
        one == other if isinstance(one, Raw) else same_form(one, other, tolerance)
        for one, other in zip(gold.sides, sides, strict=True)
    )


def _same_balance(gold: Relation, answer: Relation) -> bool:
    """Whether the differences of both sides are the same, up to a factor: of an inequality, a positive one."""
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


# --- regions of the real line ----------------------------------------------------------------------------------------


def same_region(gold: Region, answer: Region | None) -> bool:
    """Whether both are the same intervals, in any order, of the same variable where both name one."""
    if answer is None or (gold[0] and answer[0] and gold[0] != answer[0]):
        return False
    return _in_any_order(gold[1], answer[1], EXACT, _same_interval)


_COMPARISONS: dict[type, Callable[[Any, Form, Tolerance], bool]] = {
    Quantity: _same_quantity,
    Based: _never,
    Clock: _same_clock,
    Ratio: _same_ratio,
    Listing: _same_listing,
    Words: _same_words,
    Matrix: _same_matrix,
    Builder: _same_builder,
    Interval: _same_interval,
    Union: _same_union,
    Relation: _same_relation,
    Raw: _never,
}
