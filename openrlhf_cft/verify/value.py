r"""The values of expressions, and whether two are the same.

    same(parse(tokens(r"\frac{1}{\sqrt{2}}")), parse(tokens(r"\frac{\sqrt 2}{2}")))     # True

Two expressions are the same if they have the same value. Rational values must be exactly equal. Others must agree in
40 of 60 digits when numbers replace the letters (Schwartz, J. ACM 27, 1980). Nothing is evaluated as code. A power,
factorial or number that would take long is `Undefined`, and then only the same notation is equal.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from openrlhf_cft.verify.exact_value import Undefined, exact
from openrlhf_cft.verify.nodes import Node

MAX_MAGNITUDE = 1e6  # limit of a natural logarithm, of a factorial's argument, and of an angle
DIGITS = 60
CLOSE = 40  # digits that agree

Value = Any  # mpmath's mpf or mpc; mpmath has no types


@dataclass(frozen=True)
class Tolerance:
    """How far a number may differ from the gold answer."""

    relative: float = 0.0  # as a share of the gold answer
    absolute: float = 0.0

    def of(self, gold: Fraction) -> Fraction:
        """The largest difference from this gold answer."""
        return max(Fraction(self.relative) * abs(gold), Fraction(self.absolute))


EXACT = Tolerance()


# --- numeric values --------------------------------------------------------------------------------------------------


@dataclass
class _Numbers:
    """Evaluates an expression at given values of its letters.

    With `real`, a step that leaves the real numbers is undefined, and the cube root of -8 is -2: two expressions are
    compared where both are real. `log_base` is the base of a logarithm that names none.
    """

    at: dict[str, Any]
    real: bool
    log_base: int | None = None  # None: e

    def value(self, node: Node) -> Value:
        """
        Raises:
            Undefined: the expression has no value here.
        """
        import mpmath

        if node.op == "number":
            return mpmath.mpf(node.args[0].numerator) / node.args[0].denominator
        if node.op == "letter":
            return self.at[node.args[0]]
        if node.op in ("pi", "e"):
            return +getattr(mpmath, node.op)
        if node.op == "i":
            if self.real:
                raise Undefined("i")
            return mpmath.j
        if node.op == "infty":
            return mpmath.inf
        if node.op == "of":  # any function that is not a multiple of its argument, one per name
            return mpmath.sin(self.value(node.args[1]) + ord(node.args[0])) + ord(node.args[0])
        of = [self.value(arg) for arg in node.args]
        try:
            value = self._apply(node.op, *of)
        except (ZeroDivisionError, ValueError, OverflowError, TypeError, mpmath.libmp.NoConvergence) as error:
            raise Undefined(str(error)) from None
        if mpmath.isnan(value) or (self.real and isinstance(value, mpmath.mpc)):
            raise Undefined(node.op)
        return value

    def _apply(self, op: str, *of: Value) -> Value:
        import mpmath

        if op in _ARITHMETIC:
            return _ARITHMETIC[op](*of)
        if op == "^":
            return self._power(*of)
        if op == "root":
            return self._power(of[0], 1 / of[1])
        if op == "log":
            base = of[1] if len(of) > 1 else self.log_base
            return self._log(of[0]) / (1 if base is None else mpmath.log(base))
        if op == "ln":
            return self._log(of[0])
        if op in ("!", "binom"):
            _bound(*of)
            return mpmath.factorial(of[0]) if op == "!" else mpmath.binomial(*of)
        if op == "exp":
            return self._power(+mpmath.e, of[0])
        if op in ("floor", "ceil"):
            return getattr(mpmath, op)(of[0])
        if op in ("gcd", "lcm"):
            raise Undefined(op)
        _bound(*of)
        return getattr(mpmath, _MPMATH.get(op, op))(*of)

    def _log(self, of: Value) -> Value:
        import mpmath

        if of == 0 or (self.real and of < 0):
            raise Undefined("the logarithm of no positive number")
        return mpmath.log(of)

    def _power(self, base: Value, exponent: Value) -> Value:
        import mpmath

        if base == 0:
            if mpmath.re(exponent) <= 0:
                raise Undefined("0^0")
            return mpmath.mpf(0)
        if mpmath.isinf(base) or mpmath.isinf(exponent):
            raise Undefined("an infinite power")
        if abs(exponent) * max(1, abs(mpmath.log(abs(base)))) > MAX_MAGNITUDE:
            raise Undefined("too large")
        if self.real and base < 0 and not mpmath.isint(exponent):
            odd = 1 / exponent
            rounded = mpmath.nint(odd)
            if abs(odd - rounded) < mpmath.mpf(10) ** -CLOSE and rounded % 2 == 1:
                return -(mpmath.power(-base, exponent))
            raise Undefined("an even root of a negative number")
        return mpmath.power(base, exponent)


_ARITHMETIC: dict[str, Callable[..., Value]] = {
    "+": operator.add,
    "*": operator.mul,
    "/": operator.truediv,
    "-": operator.neg,
    "mod": operator.mod,
    "abs": abs,
    "min": min,
    "max": max,
}
_MPMATH = {
    **{"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec", "arccsc": "acsc"},
}


def _bound(*of: Value) -> None:
    if any(abs(value) > MAX_MAGNITUDE for value in of):
        raise Undefined("too large")


# Points at which letters are compared: fractions, fractions of both signs, and whole numbers, for (-1)^n and n!.
_POSITIVE = (("7/5", "23/9", "5/13"), ("19/6", "4/7", "11/8"), ("9/11", "31/12", "16/5"))
_MIXED = (("-7/4", "13/5", "-3/8"), ("8/5", "-11/7", "21/8"), ("-5/7", "-17/9", "-12/5"))
_WHOLE = ((2, 3, 5), (3, 5, 4), (4, 7, 9), (5, 2, 3), (7, 4, 6))


def _points(letters: Sequence[str]) -> Iterator[dict[str, Fraction]]:
    for group in (_POSITIVE, _MIXED, _WHOLE):
        for base in group:
            # Different for each letter, however many there are.
            yield {
                name: Fraction(base[index % 3]) * (1 + Fraction(2 * (index // 3), 7 if group is not _WHOLE else 2))
                for index, name in enumerate(letters)
            }


def _log_bases(*nodes: Node) -> tuple[int | None, ...]:
    """The bases to try for a log that names none: e and 10. It is enough if either one makes the values the same."""
    bare = any(node.op == "log" and len(node.args) == 1 for root in nodes for node in root.nodes)
    return (None, 10) if bare else (None,)


def values(nodes: Sequence[Node], log_base: int | None = None) -> Iterator[tuple[Value, ...]]:
    """The values of several expressions at the same points, for the points where all of them have a value.

    Real values if enough points have them, else complex values too. What rounding leaves of a zero counts as 0.
    """
    letters = sorted(frozenset().union(*(node.letters for node in nodes)))
    points: list[dict[str, Fraction]] = list(_points(letters)) if letters else [{}]
    enough = 2 if letters else 1
    for real in (True, False):
        count = 0
        for point in points:
            try:
                row = tuple(_settled(node, point, real, log_base) for node in nodes)
            except (Undefined, RecursionError):
                continue
            count += 1
            yield row
        if count >= enough:
            return


def _settled(node: Node, point: dict[str, Fraction], real: bool, log_base: int | None) -> Value:
    """The value at a point; 0 if more digits give a quite different value, which is then only a rounding error."""
    import mpmath

    twice = []
    for digits in (DIGITS, DIGITS + 30):
        with mpmath.workdps(digits):
            numbers = {name: mpmath.mpf(value.numerator) / value.denominator for name, value in point.items()}
            twice.append(_Numbers(numbers, real, log_base).value(node))
    value, again = twice
    if value == again or abs(value - again) <= mpmath.mpf(10) ** -20 * abs(again):
        return again
    if abs(value) > 1:
        raise Undefined("a pole, or digits that cancel")
    return mpmath.mpf(0)


def same(gold: Node, answer: Node, tolerance: Tolerance = EXACT) -> bool:
    """Whether two expressions have the same value for all values of their letters.

    Args:
        tolerance: for expressions without letters.
    """
    wanted, given = exact(gold), exact(answer)
    if wanted is not None and given is not None:
        return abs(wanted - given) <= tolerance.of(wanted)
    if gold == answer:
        return True
    return any(_same_values(gold, answer, base, tolerance) for base in _log_bases(gold, answer))


def _same_values(gold: Node, answer: Node, log_base: int | None, tolerance: Tolerance) -> bool:
    letters = gold.letters | answer.letters
    count = 0
    for wanted, given in values((gold, answer), log_base):
        if not close(wanted, given) and (letters or not _within(wanted, given, tolerance)):
            return False
        count += 1
    return count >= (2 if letters else 1)


def proportional(first: Node, second: Node, log_base: int | None = None) -> Value | None:
    """The constant ratio of the first expression to the second, neither being zero; None if there is none."""
    ratio: Value | None = None
    count = 0
    for one, other in values((first, second), log_base):
        if close(one, 0) and close(other, 0):
            continue
        if close(one, 0) or close(other, 0):
            return None
        if ratio is not None and not close(one / other, ratio):
            return None
        ratio = one / other
        count += 1
    return ratio if count >= 2 else None


def close(one: Value, other: Value) -> bool:
    """Whether two numbers agree in `CLOSE` digits."""
    import mpmath

    if one == other:
        return True
    if mpmath.isinf(one) or mpmath.isinf(other):
        return False
    with mpmath.workdps(DIGITS):
        return bool(abs(one - other) <= mpmath.mpf(10) ** -CLOSE * max(abs(one), abs(other)))


def _within(gold: Value, answer: Value, tolerance: Tolerance) -> bool:
    import mpmath

    if mpmath.isinf(gold) or mpmath.isinf(answer):
        return False
    return bool(abs(gold - answer) <= max(tolerance.relative * abs(gold), tolerance.absolute))
