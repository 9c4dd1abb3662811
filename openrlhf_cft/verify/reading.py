r"""Find the form of an answer: a number with its unit, a list, an interval, an equation, a matrix, words ...

    read(tokens(r"(-\infty, 2] \cup \{5\}"))      # Union(...)
    read(tokens("x = 2 or x = 3"))                 # Listing("list", (Relation(...), Relation(...)))

Reading asks no grader and guesses nothing. An answer of no such form is `Raw`, and equals only its own notation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from openrlhf_cft.verify.brackets import balanced, matching, matching_environment, opens, outside_of, split_at
from openrlhf_cft.verify.compound import read_compound
from openrlhf_cft.verify.expression import parse
from openrlhf_cft.verify.forms import (
    EMPTY_SET,
    Builder,
    Form,
    Interval,
    Listing,
    Matrix,
    Quantity,
    Ratio,
    Raw,
    Relation,
    Union,
)
from openrlhf_cft.verify.grouping import has_spaced_commas, ungrouped
from openrlhf_cft.verify.nodes import Node, Unreadable, number
from openrlhf_cft.verify.notation import Token, key
from openrlhf_cft.verify.plain_forms import read_based, read_clock, read_phrase, read_quantity, read_words
from openrlhf_cft.verify.trimming import trimmed
from openrlhf_cft.verify.units import read_unit

MAX_TOKENS = 600
MAX_NESTING = 12
_RELATIONS = {*"= < > <= >= != approx in notin equiv to Rightarrow iff sim propto perp parallel subset".split()}
_AND_OR = {"and": "and", "or": "or"}
_MATRIX = re.compile(r"([pbvBV]?)(?:small)?matrix|array")


def read(of: Sequence[Token], several: bool = False, nesting: int = 0) -> Form:
    """The form of an answer.

    Args:
        of: its tokens.
        several: whether the answer is read as several numbers; then `1,234` is two numbers.
        nesting: the number of brackets around it.
    """
    if len(of) > MAX_TOKENS or nesting > MAX_NESTING or not balanced(of):
        return Raw(key(of))
    of = trimmed(of)
    if not of:
        return Raw(())
    for reader in _READERS:
        form = reader(of, several, nesting)
        if form is not None:
            return form
    return Raw(key(of))


# --- several answers -------------------------------------------------------------------------------------------------


def _listing(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    """Several answers, with commas, semicolons, "and" or "or" between them."""
    if several:
        of = of if has_spaced_commas(of) else ungrouped(of)
    together = _and_a_half(of) or read_compound(of)
    if together is not None:
        return together
    places, joints = [], set()
    for place, token in outside_of(of):
        joint = _AND_OR.get(token.text.lower()) if token.kind == "word" else None
        if joint or (token.kind == "mark" and token.text in (",", ";")):
            places.append(place)
            joints.add(joint or token.text)
    if not places:
        return None
    parts = [part for part in split_at(of, places) if part]
    if len(parts) < 2:
        return None
    items: list[Form] = []
    for part in parts:
        form = read(part, nesting=nesting + 1)
        items += form.items if isinstance(form, Listing) and form.kind == "list" else [form]
    return Listing("list", tuple(items), "or" if joints == {"or"} else "and" if "and" in joints else ",")


def _and_a_half(of: Sequence[Token]) -> Form | None:
    """`5 and a half`, with or without a unit after it."""
    texts = [token.text.lower() for token in of]
    if len(of) < 4 or of[0].kind != "number" or texts[1:4] != ["and", "a", "half"]:
        return None
    unit = read_unit(of[4:])
    if unit is None:
        return None
    return Quantity(Node("+", (parse(of[:1]), number(Fraction(1, 2)))), unit)


def _plus_minus(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    if not any(token.kind == "macro" and token.text in ("pm", "mp") for token in of):
        return None
    items = []
    for pm, mp in (("+", "-"), ("-", "+")):
        signs = {"pm": pm, "mp": mp}
        items.append(
            read(
                [
                    Token("mark", signs[token.text], token.gap)
                    if token.kind == "macro" and token.text in signs
                    else token
                    for token in of
                ],
                nesting=nesting + 1,
            )
        )
    return Listing("list", tuple(items))


# --- brackets --------------------------------------------------------------------------------------------------------


def _bracketed(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    """A tuple, an interval or a set: brackets around all of it."""
    if key(of) in (("\\emptyset",), ("\\{", "\\}")):
        return EMPTY_SET
    if of[0].kind == "letter" and of[0].text.isupper() and len(of) > 4 and of[1].text == "(":
        point = _bracketed(of[1:], several, nesting)  # A(1, 2)
        return point if isinstance(point, Listing) and point.kind == "tuple" else None
    if not opens(of[0]) or of[0].text == "begin" or matching(of, 0) != len(of) - 1:
        return None
    left, right = of[0].text, of[-1].text
    if of[0].kind == "macro":
        return _set(of[1:-1], nesting)
    if left == "{" or right == "}":
        return None
    if of[1].text == "begin" and (matrix := _matrix(of[1:-1], several, nesting)):
        return matrix
    inside = ungrouped(of[1:-1])
    places = [place for place, token in outside_of(inside) if token.kind == "mark" and token.text in (",", ";")]
    if not places:
        return None
    items = tuple(read(part, nesting=nesting + 1) for part in split_at(inside, places))
    if left == "[" and right == "]":
        rows = tuple(_row(item) for item in items)
        if all(rows) and len({len(row) for row in rows}) == 1:
            return Matrix(rows, bars=False)  # as Python writes it
    if left == "(" and right == ")":
        return Listing("tuple", items)
    if len(items) == 2:
        return Interval(*items, (left == "[", right == "]"))
    return Listing("tuple", items) if left == "[" and right == "]" else None


def _row(item: Form) -> tuple[Form, ...]:
    """The cells of a row such as `[1, 2]`; empty if an item is not a row."""
    if isinstance(item, Interval):
        return (item.low, item.high) if item.closed == (True, True) else ()
    return item.items if isinstance(item, Listing) and item.kind == "tuple" else ()


def _set(inside: Sequence[Token], nesting: int) -> Form:
    for place, token in outside_of(inside):
        if token.kind == "mark" and token.text in ("|", ":") and place:
            return Builder(_name(inside[:place]), read(inside[place + 1 :], nesting=nesting + 1))
    inside = ungrouped(inside)
    places = [place for place, token in outside_of(inside) if token.kind == "mark" and token.text in (",", ";")]
    items = [read(part, nesting=nesting + 1) for part in split_at(inside, places) if part]
    flat: list[Form] = []
    for item in items:
        flat += item.items if isinstance(item, Listing) and item.kind == "list" else [item]
    return Listing("set", tuple(flat))


def _name(of: Sequence[Token]) -> tuple[str, ...]:
    """The variable of a set builder. The set that it belongs to is left out if that is all real numbers."""
    texts = key(of)
    return texts[:1] if texts[1:] in (("\\in", "\\mathbb", "{", "R", "}"), ("\\in", "R")) else texts


def _union(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    places = [place for place, token in outside_of(of) if token.kind == "macro" and token.text == "cup"]
    if not places:
        return None
    return Union(tuple(read(part, nesting=nesting + 1) for part in split_at(of, places)))


def _matrix(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    texts = [token.text for token in of]
    if "begin" in texts[1:] and texts[-4:-2] == ["end", "{"] and texts[0] != "begin":
        return _multiple(of[: texts.index("begin")], _matrix(of[texts.index("begin") :], several, nesting))
    if texts[:2] != ["begin", "{"] or "}" not in texts:
        return None
    end = texts.index("}")
    name = _MATRIX.fullmatch("".join(texts[2:end]))
    if name is None or texts[-4:-2] != ["end", "{"] or matching_environment(texts) != len(of) - 4:
        return None
    inside = of[end + 1 : -4]
    if name.group() == "array" and inside and inside[0].text == "{":
        inside = inside[matching(inside, 0) + 1 :]
    rows = split_at(inside, [p for p, token in outside_of(inside) if token.kind == "macro" and token.text == "\\"])
    cells = []
    for row in rows:
        if not row:
            continue
        columns = split_at(
            row, [p for p, token in outside_of(row) if token.text == "&" and token.kind in ("mark", "macro")]
        )
        cells.append(tuple(read(column, nesting=nesting + 1) for column in columns))
    if not cells or len({len(row) for row in cells}) != 1:
        return None
    return Matrix(tuple(cells), name[1] in ("v", "V"))


def _multiple(factor: Sequence[Token], matrix: Form | None) -> Form | None:
    """A factor times a matrix."""
    if not isinstance(matrix, Matrix) or matrix.bars:
        return None
    try:
        node = parse(factor[:-1] if factor[-1].text in "*×" else factor)
    except Unreadable:
        return None
    rows = []
    for row in matrix.rows:
        cells = [Quantity(Node("*", (node, cell.value))) for cell in row if isinstance(cell, Quantity)]
        if len(cells) != len(row):
            return None
        rows.append(tuple(cells))
    return Matrix(tuple(rows), bars=False)


# --- relations -------------------------------------------------------------------------------------------------------


def _relation(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    places = [place for place, token in outside_of(of) if token.kind in ("mark", "macro") and token.text in _RELATIONS]
    if not places:
        return None
    sides = split_at(of, places)
    signs = tuple(of[place].text for place in places)
    if signs == ("equiv",):
        sides = _with_modulus(sides)
    return Relation(
        tuple(read(side, several, nesting=nesting + 1) if side else Raw(()) for side in sides),
        signs,
        tuple(key(side) for side in sides),
    )


def _with_modulus(sides: list[Sequence[Token]]) -> list[Sequence[Token]]:
    """The sides of a congruence, with its modulus as a third side: `(mod 5)`, `\\pmod{5}`, `\\mod 5`."""
    left, right = sides
    place = next((place for place, token in enumerate(right) if token.text in ("mod", "pmod")), None)
    if place is None:
        return sides
    modulus = [token for token in right[place + 1 :] if token.text not in "{}()"]
    return [left, [token for token in right[:place] if token.text != "("], modulus]


def _ratio(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    places = [place for place, token in outside_of(of) if token.text == ":" and token.kind == "mark"]
    places = places or [p for p, token in outside_of(of) if token.text.lower() == "to" and token.kind == "word"]
    if not places:
        return None
    parts = split_at(of, places)
    if not all(parts):
        return None
    terms = tuple(read(part, nesting=nesting + 1) for part in parts)
    return Ratio(terms) if all(isinstance(term, Quantity) for term in terms) else None


# --- numbers, words --------------------------------------------------------------------------------------------------


_READERS = (
    *(read_phrase, read_clock, _listing, _relation, _plus_minus, _union, _bracketed),
    *(_matrix, _ratio, read_based, read_quantity, read_words),
)
