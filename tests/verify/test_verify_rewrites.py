"""Gold answers of many forms, written otherwise: the same answer is accepted, and another one is not.

Each form is drawn with its meaning, so a test knows which rewriting changes it.
"""

# ruff: noqa: E501

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import tries

from openrlhf_cft.verify.equality import equal

Draw = Any


@dataclass(frozen=True)
class Gold:
    """A form with the parts that it is made of."""

    form: str
    parts: tuple[Any, ...]

    def written(self) -> str:
        return FORMS[self.form].format(*self.parts)


FORMS = {
    "number": "{}",
    "unit": r"{}\text{{ {}}}",
    "money": r"\${}",
    "percent": r"{}\%",
    "fraction": r"{}\frac{{{}}}{{{}}}",
    "root": r"{}\sqrt{{{}}}",
    "power": "{}^{{{}}}",
    "scientific": r"{} \times 10^{{{}}}",
    "interval": "{}{},{}{}",
    "tuple": "({}, {}, {})",
    "set": r"\{{{}, {}, {}\}}",
    "list": "{}, {}",
    "named": "{} = {}",
    "line": "y = {}x + {}",
    "circle": "x^2 + y^2 = {}",
    "inequality": "x {} {}",
    "builder": r"\{{x \mid x {} {}\}}",
    "function": r"\{} {}x",
    "polynomial": "{}x^{} + {}",
    "complex": "{} + {}i",
    "matrix": r"\begin{{pmatrix}} {} & {} \\ {} & {} \end{{pmatrix}}",
    "ratio": "{}:{}",
    "time": "{}:{:02d} {}",
    "option": r"\text{{({})}}",
    "base": "{}_{}",
    "binomial": r"\binom{{{}}}{{{}}}",
    "congruence": r"n \equiv {} \pmod{{{}}}",
    "derivative": r"\frac{{d{}}}{{d{}}}",
    "decorated": r"\{}{{{}}}",
    "text": r"\text{{{}}}",
}
UNITS = ("cm", "m", "km", "hours", "minutes", "dollars", "apples", "students", "miles per hour", "cm^2")
FUNCTIONS = ("sin", "tan", "csc", "ln", "arctan", "cot")  # none is even
SIGNS = ("<", ">", r"\le", r"\ge")
DECORATIONS = ("overline", "vec", "hat", "dot")
WORDS = ("even", "odd", "yes", "no", "Monday", "Tuesday", "Evelyn", "Briana", "true", "false")

small, digits = st.integers(2, 9), st.integers(10, 9_999)
whole = st.integers(-9_999, 9_999).filter(lambda n: abs(n) > 1)


def distinct(strategy: Draw, count: int) -> Draw:
    return st.lists(strategy, min_size=count, max_size=count, unique=True)


golds = st.one_of(
    st.builds(lambda n: Gold("number", (n,)), whole),
    st.builds(lambda n, u: Gold("unit", (n, u)), digits, st.sampled_from(UNITS)),
    st.builds(lambda n: Gold("money", (n,)), digits),
    st.builds(lambda n: Gold("percent", (n,)), digits),
    st.builds(lambda s, ab: Gold("fraction", (s, *ab)), st.sampled_from(["", "-"]), distinct(small, 2)),
    st.builds(lambda ab: Gold("root", (ab[0], ab[1])), st.tuples(small, st.sampled_from([2, 3, 5, 6, 7]))),
    st.builds(lambda ab: Gold("power", tuple(ab)), distinct(st.sampled_from([3, 5, 7, 11]), 2)),
    st.builds(lambda a, b: Gold("scientific", (a / 100, b)), st.integers(100, 999), st.integers(-30, 30)),
    st.builds(
        lambda left, ab, right: Gold("interval", (left, *sorted(ab), right)),
        st.sampled_from("(["),
        distinct(whole, 2),
        st.sampled_from(")]"),
    ),
    st.builds(lambda of: Gold("tuple", tuple(of)), distinct(whole, 3)),
    st.builds(lambda of: Gold("set", tuple(of)), distinct(whole, 3)),
    st.builds(lambda of: Gold("list", tuple(of)), distinct(whole, 2)),
    st.builds(lambda name, n: Gold("named", (name, n)), st.sampled_from("xyn"), whole),
    st.builds(lambda ab: Gold("line", tuple(ab)), distinct(small, 2)),
    st.builds(lambda n: Gold("circle", (n,)), whole),
    st.builds(lambda sign, n: Gold("inequality", (sign, n)), st.sampled_from(SIGNS), whole),
    st.builds(lambda sign, n: Gold("builder", (sign, n)), st.sampled_from(SIGNS), whole),
    st.builds(lambda name, n: Gold("function", (name, n)), st.sampled_from(FUNCTIONS), small),
    st.builds(lambda a, b, c: Gold("polynomial", (a, b, c)), small, small, digits),
    st.builds(lambda ab: Gold("complex", tuple(ab)), distinct(small, 2)),
    st.builds(lambda of: Gold("matrix", tuple(of)), distinct(whole, 4)),
    st.builds(lambda ab: Gold("ratio", tuple(ab)), distinct(small, 2)),
    st.builds(
        lambda h, m, half: Gold("time", (h, m, half)),
        st.integers(1, 12),
        st.integers(0, 59),
        st.sampled_from(["a.m.", "p.m."]),
    ),
    st.builds(lambda letter: Gold("option", (letter,)), st.sampled_from("ABCDE")),
    st.builds(lambda n, base: Gold("base", (n, base)), st.sampled_from([101, 1_110, 212, 1_021]), st.integers(3, 9)),
    st.builds(lambda k, n: Gold("binomial", (n, k)), st.integers(2, 4), st.integers(9, 20)),
    st.builds(lambda a, n: Gold("congruence", (a, n)), st.integers(1, 4), st.integers(5, 9)),
    st.builds(lambda ab: Gold("derivative", tuple(ab)), distinct(st.sampled_from("xyt"), 2)),
    st.builds(lambda name, letter: Gold("decorated", (name, letter)), st.sampled_from(DECORATIONS), st.sampled_from("zuv")),
    st.builds(lambda word: Gold("text", (word,)), st.sampled_from(WORDS)),
)  # fmt: skip

# Parts that may be exchanged for another one of the same kind.
ALTERNATIVES: tuple[tuple[Any, ...], ...] = (UNITS, FUNCTIONS, DECORATIONS, WORDS, tuple("ABCDE"), ("a.m.", "p.m."))


def another(part: Any, choose: Draw) -> Any:
    """A part that means something else."""
    if isinstance(part, (int, float)):
        return choose(st.sampled_from([n for n in (part + 1, part + 10, part * 10, -part) if n != part]))
    if part in ("", "-"):
        return {"": "-", "-": ""}[part]
    if part in "()[]":
        return {"(": "[", "[": "(", ")": "]", "]": ")"}[part]
    if part in SIGNS:
        return choose(st.sampled_from([sign for sign in SIGNS if sign != part]))
    if part in "xyntzuv" and len(part) == 1:
        return {"x": "y", "y": "x", "n": "m", "t": "s", "z": "w", "u": "v", "v": "u"}[part]
    group = next(group for group in ALTERNATIVES if part in group)
    return choose(st.sampled_from([other for other in group if other != part]))


@pytest.mark.slow
@tries(1_000)
@given(golds, st.data())
def test_another_answer_is_wrong(gold: Gold, data: Any) -> None:
    place = data.draw(st.integers(0, len(gold.parts) - 1))
    parts = list(gold.parts)
    parts[place] = another(parts[place], data.draw)
    changed = replace(gold, parts=tuple(parts))
    if sorted(map(str, parts)) == sorted(map(str, gold.parts)) and gold.form in ("set", "list"):
        return
    if gold.form == "time" and not (1 <= parts[0] <= 24 and 0 <= parts[1] < 60):
        return
    if gold.form == "congruence" and (parts[0] - gold.parts[0]) % gold.parts[1] == 0 and place == 0:
        return
    if value(changed) is not None and value(changed) == value(gold):
        return
    assert not equal(changed.written(), gold.written()), (changed.written(), gold.written())
    assert not equal(gold.written(), changed.written()), (gold.written(), changed.written())


def value(gold: Gold) -> Fraction | None:
    """Of the forms whose parts are not all independent."""
    if gold.form == "fraction":
        sign, above, below = gold.parts
        return None if not below else Fraction(above, below) * (-1 if sign else 1)
    if gold.form == "scientific" and gold.parts[1] == 0:
        return Fraction(str(gold.parts[0]))
    if gold.form == "binomial" and min(gold.parts) >= 0:
        return Fraction(math.comb(*gold.parts))
    if gold.form == "power":
        return Fraction(gold.parts[0]) ** gold.parts[1]
    return None


@pytest.mark.slow
@tries(500)
@given(golds, st.data())
def test_the_same_answer_is_right(gold: Gold, data: Any) -> None:
    written = gold.written()
    assert equal(written, written)
    rewriting = data.draw(st.sampled_from(sorted(REWRITINGS)))
    again = REWRITINGS[rewriting](written)
    assert equal(again, written), (again, written)
    assert equal(written, again), (written, again)


REWRITINGS: dict[str, Any] = {
    "spaces": lambda text: f" {text} ",
    "dollars": lambda text: text if "$" in text else f"${text}$",
    "delimiters": lambda text: f"\\({text}\\)",
    "display": lambda text: f"\\[{text}\\]",
    "dot": lambda text: f"{text}.",
    "bold": lambda text: f"**{text}**",
    "displaystyle": lambda text: f"\\displaystyle {text}",
    "dfrac": lambda text: text.replace("\\frac", "\\dfrac"),
    "left": lambda text: text.replace("(", "\\left(").replace(")", "\\right)") if "(" in text else text,
    "narrow": lambda text: text.replace(", ", ",\\,").replace(" = ", "="),
    "minus": lambda text: text.replace("-", "−") if "\\" not in text else text,
    "leq": lambda text: text.replace(r"\le ", "\\leq ").replace(r"\ge ", "≥ "),
    "mathrm": lambda text: text.replace("\\text", "\\mathrm") if "text{" in text else text,
}
