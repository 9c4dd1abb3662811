"""Exact values of expressions of rational numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from openrlhf_cft.verify.nodes import Node

MAX_BITS = 40_000  # of an exact numerator or denominator: 3^{2021} is an answer


class Undefined(ArithmeticError):
    """The expression has no value at this point, or none that can be computed in reasonable time."""


def exact(node: Node) -> Fraction | None:
    """The value of an expression of rational numbers; None if it has no rational value, or a too large one."""
    try:
        return _exact(node)
    except (Undefined, ZeroDivisionError, OverflowError, RecursionError):
        return None


def _exact(node: Node) -> Fraction:
    if node.op == "number":
        return Fraction(node.args[0])
    operation = _RATIONAL.get(node.op)
    if operation is None:
        raise Undefined(node.op)
    value = operation(*(_exact(arg) for arg in node.args))
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise Undefined("too large")
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise Undefined("a root")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * bits > MAX_BITS:
        raise Undefined("too large")
    return base ** int(exponent)


def _factorial(of: Fraction) -> Fraction:
    if of.denominator != 1 or not 0 <= of <= 2_000:
        raise Undefined("a factorial")
    return Fraction(math.factorial(int(of)))


def _binomial(above: Fraction, below: Fraction) -> Fraction:
    if above.denominator != 1 or below.denominator != 1 or not 0 <= below <= above <= 10_000:
        raise Undefined("a binomial")
    return Fraction(math.comb(int(above), int(below)))


def _integers(function: Callable[..., int]) -> Callable[..., Fraction]:
    def call(*of: Fraction) -> Fraction:
        if any(value.denominator != 1 for value in of):
            raise Undefined("of no integers")
        return Fraction(function(*map(int, of)))

    return call


_RATIONAL: dict[str, Callable[..., Fraction]] = {
    "+": lambda a, b: a + b,
    "-": lambda a: -a,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "^": _power,
    "!": _factorial,
    "binom": _binomial,
    "abs": abs,
    "mod": lambda a, b: a % b,
    "floor": lambda a: Fraction(math.floor(a)),
    "ceil": lambda a: Fraction(math.ceil(a)),
    "min": min,
    "max": max,
    "gcd": _integers(math.gcd),
    "lcm": _integers(math.lcm),
}
