r"""Quantities in several units: `5 hours 30 minutes`, `12 dollars and 75 cents`, `$12 and 75 cents`, `5 ft 3 in`.

read_compound(tokens("5 hours 30 minutes"))      # Quantity(5 + 1/2, hour)
read_compound(tokens("5 hours, 3 apples"))       # None
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from openrlhf_cft.verify.expression import MAX_DIGITS
from openrlhf_cft.verify.forms import Quantity
from openrlhf_cft.verify.nodes import decimal, number
from openrlhf_cft.verify.notation import Token
from openrlhf_cft.verify.units import Unit, is_currency, is_measure, is_symbol, read_unit, scale

MAX_PARTS = 4  # days, hours, minutes, seconds


def read_compound(of: Sequence[Token]) -> Quantity | None:
    """The value in its largest unit. Each part must be less than one unit of the part before: not 5 hours 90 minutes.

    Returns:
        None if the tokens are anything else.
    """
    if not 4 <= len(of) <= 4 * MAX_PARTS + 1 or of[0].kind not in ("number", "mark"):
        return None
    parts = list(_parts(of))
    if len(parts) < 2 or any(part is None for part in parts):
        return None
    (total, unit), *smaller = [part for part in parts if part is not None]
    least, last = Fraction(1), total
    for value, name in smaller:
        factor = scale(unit, name)
        if factor is None or value * factor >= least or last.denominator != 1:
            return None
        total, least, last = total + value * factor, factor, value
    return Quantity(number(total), unit)


def _parts(of: Sequence[Token]) -> Iterator[tuple[Fraction, Unit] | None]:
    """The numbers with their units; None where anything else is between them."""
    start = 0
    while start < len(of):
        for word in (",", "and") if start else ():
            start += start < len(of) and of[start].text.lower() == word
        texts = of[start : start + 2]
        if len(texts) < 2:
            yield None
            return
        amount, name = reversed(texts) if is_currency(texts[0]) and not start else texts
        start += 2
        named = is_measure(name) or is_symbol(name) or is_currency(name) or name.text in ("min", "sec")
        unit = read_unit([name]) if named else None
        if not unit or amount.kind != "number" or len(amount.text) > MAX_DIGITS:
            yield None
            return
        yield decimal(amount.text), unit
