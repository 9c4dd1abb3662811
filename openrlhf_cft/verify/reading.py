r"""What an answer is: a number with its unit, a list, an interval, an equation, a matrix, words ...

    read(tokens(r"(-\infty, 2] \cup \{5\}"))      # Union(...)
    read(tokens("x = 2 or x = 3"))                 # Listing("list", (Relation(...), Relation(...)))

Reading asks no grader and guesses nothing: what has none of these forms is `Raw`, and equal to its own notation only.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from openrlhf_cft.verify.compound import read_compound
from openrlhf_cft.verify.expression import Node, Unreadable, number, parse
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
from openrlhf_cft.verify.notation import FUNCTIONS, Token, key
from openrlhf_cft.verify.number_words import number_in_words
from openrlhf_cft.verify.units import (
    MULTIPLES,
    NONE,
    Unit,
    is_currency,
    is_measure,
    is_symbol,
    read_unit,
    singular,
)
from openrlhf_cft.verify.value import exact

MAX_TOKENS = 600
MAX_NESTING = 12
MAX_UNITS = 8  # places in an expression where a unit is looked for


_RELATIONS = frozenset(
    "= < > <= >= != approx in notin equiv to Rightarrow iff sim propto perp parallel subset".split()
)
_OPEN = {"(": ")", "[": "]", "{": "}"}
_AND_OR = {"and": "and", "or": "or"}
_ARTICLES = frozenset("a an the".split())
_MATRIX = re.compile(r"([pbvBV]?)(?:small)?matrix|array")
_CLOCK = re.compile(r"(\d{1,2})(?::(\d\d)(?::00)?)?(?:([ap])\.?m\.?|inthe(morning|afternoon|evening))?(?:sharp)?")
_BASES = {name: base for base, name in enumerate("two three four five six seven eight nine ten".split(), 2)}
_NOT_THERE = Words(("does", "not", "exist"))
_PHRASES: dict[str, Form] = {
    **dict.fromkeys(("no solution", "no solutions", "empty set", "the empty set", "null set"), EMPTY_SET),
    **dict.fromkeys(("dne", "does not exist", "doesn ' t exist"), _NOT_THERE),
}
_HEDGES = frozenset("about approximately approx around roughly exactly only just simply".split())


def read(of: Sequence[Token], several: bool = False, nesting: int = 0) -> Form:
    """The form of an answer.

    Args:
        of: its tokens.
        several: whether it is read as one of several numbers: then `1,234` is two numbers.
        nesting: of the brackets around it.
    """
    if len(of) > MAX_TOKENS or nesting > MAX_NESTING or not _balanced(of):
        return Raw(key(of))
    of = _trimmed(of)
    if not of:
        return Raw(())
    for reader in _READERS:
        form = reader(of, several, nesting)
        if form is not None:
            return form
    return Raw(key(of))


def _trimmed(of: Sequence[Token]) -> Sequence[Token]:
    """Without the braces around all of it, the sentence's dot and words that say that it is only about so."""
    changed = True
    while changed and of:
        changed = False
        if of[-1].text in (".", ",", ";") and of[-1].kind == "mark" and not _abbreviates(of):
            of, changed = of[:-1], True
        elif of[0].text in (":", ";", ",") and of[0].kind == "mark":
            of, changed = of[1:], True
        elif of[0].text == "{" and of[0].kind == "mark" and _matching(of, 0) == len(of) - 1:
            of, changed = of[1:-1], True
        elif of[0].kind == "word" and of[0].text.lower() in _HEDGES and len(of) > 1:
            of, changed = of[1:], True
        elif of[0].kind == "macro" and of[0].text == "approx" and len(of) > 1:
            of, changed = of[1:], True
        elif (length := _announcement(of)) and len(of) > length:
            of, changed = of[length:], True
        elif (length := _remark(of)) and len(of) > length:
            of, changed = of[:-length], True
    return of


def _announcement(of: Sequence[Token]) -> int:
    """The number of tokens that only say that the answer follows: `The answer is`, `Answer:`."""
    words = [token.text.lower() for token in of[:5]]
    start = 1 if words[:1] == ["the"] else 0
    start += words[start : start + 1] in (["final"], ["correct"])
    if words[start : start + 1] == ["answer"] and words[start + 1 : start + 2] in (["is"], [":"], ["="]):
        return start + 2
    return 0


def _remark(of: Sequence[Token]) -> int:
    """The number of tokens of words in brackets at the end: `5 (approximately)`."""
    if of[-1].text != ")":
        return 0
    start = next((place for place in range(len(of) - 1, -1, -1) if of[place].text == "("), 0)
    inside = of[start + 1 : -1]
    return len(of) - start if start and inside and all(t.kind == "word" and len(t.text) > 3 for t in inside) else 0


def _abbreviates(of: Sequence[Token]) -> bool:
    """Whether the last dot is that of a.m. or p.m."""
    return of[-1].text == "." and len(of) > 2 and of[-2].text.lower() == "m" and of[-3].text == "."


def _balanced(of: Sequence[Token]) -> bool:
    """Whether the LaTeX braces match, and brackets of all kinds open and close equally often."""
    depth = 0
    for token in of:
        if token.kind == "mark":
            depth += (token.text in _OPEN) - (token.text in _OPEN.values())
            if depth < 0:
                return False
    return depth == 0


def _matching(of: Sequence[Token], start: int) -> int:
    """The place of the bracket that closes the one at `start`; an interval may close with another kind. -1: none."""
    depth = 0
    for place in range(start, len(of)):
        token = of[place]
        depth += _opens(token) - _closes(token)
        if depth == 0:
            return place
    return -1


def _opens(token: Token) -> bool:
    return (token.kind == "mark" and token.text in _OPEN) or (token.kind == "macro" and token.text in ("{", "begin"))


def _closes(token: Token) -> bool:
    return (token.kind == "mark" and token.text in _OPEN.values()) or (
        token.kind == "macro" and token.text in ("}", "end")
    )


def _outside(of: Sequence[Token]) -> Iterator[tuple[int, Token]]:
    """The tokens that stand in no bracket."""
    depth = 0
    for place, token in enumerate(of):
        depth -= _closes(token)
        if depth == 0 and not _opens(token) and not _closes(token):
            yield place, token
        depth += _opens(token)


def _split(of: Sequence[Token], places: Sequence[int]) -> list[Sequence[Token]]:
    edges = [-1, *places, len(of)]
    return [of[start + 1 : end] for start, end in itertools.pairwise(edges)]


# --- several answers -------------------------------------------------------------------------------------------------


def _listing(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    """Answers with commas, semicolons, "and" or "or" between them."""
    if several:
        of = _ungrouped(of)
    together = _and_a_half(of) or read_compound(of)
    if together is not None:
        return together
    places, joints = [], set()
    for place, token in _outside(of):
        joint = _AND_OR.get(token.text.lower()) if token.kind == "word" else None
        if joint or (token.kind == "mark" and token.text in (",", ";")):
            places.append(place)
            joints.add(joint or token.text)
    if not places:
        return None
    parts = [part for part in _split(of, places) if part]
    if len(parts) < 2:
        return None
    items: list[Form] = []
    for part in parts:
        form = read(part, nesting=nesting + 1)
        items += form.items if isinstance(form, Listing) and form.kind == "list" else [form]
    return Listing("list", tuple(items), "or" if joints == {"or"} else "and" if "and" in joints else ",")


def _and_a_half(of: Sequence[Token]) -> Form | None:
    """`5 and a half`, with or without a unit behind it."""
    texts = [token.text.lower() for token in of]
    if len(of) < 4 or of[0].kind != "number" or texts[1:4] != ["and", "a", "half"]:
        return None
    unit = read_unit(of[4:])
    if unit is None:
        return None
    return Quantity(Node("+", (parse(of[:1]), number(Fraction(1, 2)))), unit)


def _ungrouped(of: Sequence[Token]) -> list[Token]:
    """`1,234` as two numbers, unless commas with a space behind them separate the numbers."""
    marks = [place for place, token in _outside(of) if token.text == "," and token.kind == "mark"]
    if any(place + 1 < len(of) and of[place + 1].gap for place in marks):
        return list(of)
    found: list[Token] = []
    outside = {place for place, _ in _outside(of)}
    for place, token in enumerate(of):
        if not token.parts or place not in outside:
            found.append(token)
            continue
        for part in token.parts:
            found += [Token("number", part, token.gap), Token("mark", ",")]
        found.pop()
    return found


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
    if not _opens(of[0]) or of[0].text == "begin" or _matching(of, 0) != len(of) - 1:
        return None
    left, right = of[0].text, of[-1].text
    if of[0].kind == "macro":
        return _set(of[1:-1], nesting)
    if left == "{" or right == "}":
        return None
    if of[1].text == "begin" and (matrix := _matrix(of[1:-1], several, nesting)):
        return matrix
    inside = _ungrouped(of[1:-1])
    places = [place for place, token in _outside(inside) if token.kind == "mark" and token.text in (",", ";")]
    if not places:
        return None
    items = tuple(read(part, nesting=nesting + 1) for part in _split(inside, places))
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
    """The cells of `[1, 2]`; none where an item is no row."""
    if isinstance(item, Interval):
        return (item.low, item.high) if item.closed == (True, True) else ()
    return item.items if isinstance(item, Listing) and item.kind == "tuple" else ()


def _set(inside: Sequence[Token], nesting: int) -> Form:
    for place, token in _outside(inside):
        if token.kind == "mark" and token.text in ("|", ":") and place:
            return Builder(_name(inside[:place]), read(inside[place + 1 :], nesting=nesting + 1))
    inside = _ungrouped(inside)
    places = [place for place, token in _outside(inside) if token.kind == "mark" and token.text in (",", ";")]
    items = [read(part, nesting=nesting + 1) for part in _split(inside, places) if part]
    flat: list[Form] = []
    for item in items:
        flat += item.items if isinstance(item, Listing) and item.kind == "list" else [item]
    return Listing("set", tuple(flat))


def _name(of: Sequence[Token]) -> tuple[str, ...]:
    """The variable of a set builder, without the set that it is from, if that is all real numbers."""
    texts = key(of)
    return texts[:1] if texts[1:] in (("\\in", "\\mathbb", "{", "R", "}"), ("\\in", "R")) else texts


def _union(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    places = [place for place, token in _outside(of) if token.kind == "macro" and token.text == "cup"]
    if not places:
        return None
    return Union(tuple(read(part, nesting=nesting + 1) for part in _split(of, places)))


def _matrix(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    texts = [token.text for token in of]
    if "begin" in texts[1:] and texts[-4:-2] == ["end", "{"] and texts[0] != "begin":
        return _multiple(of[: texts.index("begin")], _matrix(of[texts.index("begin") :], several, nesting))
    if texts[:2] != ["begin", "{"] or "}" not in texts:
        return None
    end = texts.index("}")
    name = _MATRIX.fullmatch("".join(texts[2:end]))
    if name is None or texts[-4:-2] != ["end", "{"] or _matching_environment(texts) != len(of) - 4:
        return None
    inside = of[end + 1 : -4]
    if name.group() == "array" and inside and inside[0].text == "{":
        inside = inside[_matching(inside, 0) + 1 :]
    rows = _split(inside, [p for p, token in _outside(inside) if token.kind == "macro" and token.text == "\\"])
    cells = []
    for row in rows:
        if not row:
            continue
        columns = _split(
            row, [p for p, token in _outside(row) if token.text == "&" and token.kind in ("mark", "macro")]
        )
        cells.append(tuple(read(column, nesting=nesting + 1) for column in columns))
    if not cells or len({len(row) for row in cells}) != 1:
        return None
    return Matrix(tuple(cells), name[1] in ("v", "V"))


def _multiple(factor: Sequence[Token], matrix: Form | None) -> Form | None:
    """A matrix behind a factor."""
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


def _matching_environment(texts: Sequence[str]) -> int:
    depth = 0
    for place, text in enumerate(texts):
        depth += (text == "begin") - (text == "end")
        if depth == 0:
            return place
    return -1


# --- relations -------------------------------------------------------------------------------------------------------


def _relation(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    places = [place for place, token in _outside(of) if token.kind in ("mark", "macro") and token.text in _RELATIONS]
    if not places:
        return None
    sides = _split(of, places)
    signs = tuple(of[place].text for place in places)
    if signs == ("equiv",):
        sides = _with_modulus(sides)
    return Relation(
        tuple(read(side, several, nesting=nesting + 1) if side else Raw(()) for side in sides),
        signs,
        tuple(key(side) for side in sides),
    )


def _with_modulus(sides: list[Sequence[Token]]) -> list[Sequence[Token]]:
    """The sides of a congruence, and its modulus as a third: `(mod 5)`, `\\pmod{5}`, `\\mod 5`."""
    left, right = sides
    place = next((place for place, token in enumerate(right) if token.text in ("mod", "pmod")), None)
    if place is None:
        return sides
    modulus = [token for token in right[place + 1 :] if token.text not in "{}()"]
    return [left, [token for token in right[:place] if token.text != "("], modulus]


def _ratio(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    places = [place for place, token in _outside(of) if token.text == ":" and token.kind == "mark"]
    places = places or [p for p, token in _outside(of) if token.text.lower() == "to" and token.kind == "word"]
    if not places:
        return None
    parts = _split(of, places)
    if not all(parts):
        return None
    terms = tuple(read(part, nesting=nesting + 1) for part in parts)
    return Ratio(terms) if all(isinstance(term, Quantity) for term in terms) else None


# --- numbers, words --------------------------------------------------------------------------------------------------


def _clock(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    """A time of day: `7:30`, `7:30 p.m.`, `3 PM`, `15:00`, noon."""
    text = "".join(token.text for token in of[:12] if token.text not in "{}").lower()
    if text in ("noon", "midnight"):
        return Clock(12, 0, "p" if text == "noon" else "a")
    match = _CLOCK.fullmatch(text)
    if match is None or not (match[2] or match[3] or match[4]) or int(match[1]) > 24 or int(match[2] or 0) > 59:
        return None
    half = match[3] or {"morning": "a", "afternoon": "p", "evening": "p"}.get(match[4] or "", "")
    hour = int(match[1])
    if hour > 12 and not half:
        return Clock(hour - 12, int(match[2] or 0), "p")
    return Clock(hour, int(match[2] or 0), half)


def _based(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    """Digits with a base: `101_2`, `(101)_{2}`, `101_{\\text{two}}`, `101 base 2`."""
    texts = [token.text.lower() for token in of if token.text not in "{}()"]
    if len(texts) == 4 and texts[1] == "_" and texts[2] == "base":
        texts.pop(2)
    if len(texts) != 3 or texts[1] not in ("_", "base") or not texts[0].isalnum() or not texts[0][0].isdigit():
        return None
    base = {**_BASES, **{name: int(name) for name in [texts[2]] if name.isdecimal()}}.get(texts[2])
    return Based(texts[0], str(base)) if base is not None and 1 < base <= 36 else None


def _quantity(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    """An expression, with a currency before it or a unit behind it."""
    currency: Unit = NONE
    negative = of[0].text == "-" and len(of) > 2
    start = 1 if negative else 0
    if is_currency(of[start]):
        currency = read_unit(of[start : start + 1]) or NONE
        dot = start + 1 < len(of) and of[start + 1].text == "."  # Rs. 50
        of = [*of[:start], *of[start + 1 + dot :]]
        if not of:
            return None
    of = _endless(_degrees(of))
    for cut in (*itertools.islice(_unit_starts(of), MAX_UNITS), len(of)):
        value, unit = of[:cut], of[cut:]
        factor = 1
        if unit and unit[0].kind == "word" and unit[0].text.lower() in MULTIPLES:
            factor, unit = MULTIPLES[unit[0].text.lower()], unit[1:]
        read_as = read_unit(unit)
        if read_as is None or (read_as and currency and read_as != currency):
            continue
        try:
            node = parse(value)
        except Unreadable:
            continue
        if unit and unit[0].kind == "letter" and not unit[0].prose and exact(node) is None:
            continue  # 2x m is a product
        if factor != 1:
            node = Node("*", (node, number(factor)))
        return Quantity(node, read_as or currency)
    return None


def _endless(of: Sequence[Token]) -> Sequence[Token]:
    """`0.333...` as the repeating decimal that it means, where its last three digits are the same."""
    texts = [token.text for token in of]
    if len(of) < 2 or of[0].kind != "number" or texts[1:] not in (["ldots"], [".", ".", "."]):
        return of
    digits = texts[0].partition(".")[2]
    if len(digits) < 3 or len(set(digits[-3:])) > 1:
        return of
    fixed = texts[0].rstrip(digits[-1])
    return [Token("number", fixed), Token("macro", "overline"), Token("number", digits[-1])]


def _degrees(of: Sequence[Token]) -> Sequence[Token]:
    """A degree sign at the end, or before words, as a word; elsewhere it is part of the expression."""
    texts = [token.text for token in of]
    if any(token.kind == "macro" and token.text in FUNCTIONS for token in of):
        return of
    for place in range(1, len(of) - 1):
        length = 4 if texts[place + 1 : place + 4] == ["{", "circ", "}"] else 2 if texts[place + 1] == "circ" else 0
        if of[place].text != "^" or not length:
            continue
        behind = of[place + length :]
        if not behind or behind[0].kind in ("word", "letter"):
            scale = {"C": "celsius", "F": "fahrenheit"}.get(behind[0].text if behind else "")
            word = Token("word", scale or "degree", gap=True, prose=True)
            return [*of[:place], word, *behind[1 if scale else 0 :]]
    return of


def _unit_starts(of: Sequence[Token]) -> Iterator[int]:
    """Where a unit may begin: the first word, sign of a unit, or symbol of one behind a number."""
    for place, token in enumerate(of):
        if place == 0:
            continue
        if token.kind == "word" and (token.prose or len(token.text) > 3 or is_measure(token) or token.gap):
            yield place
            return
        if token.text in ("%", "$", "€", "£", "¢") and token.kind == "mark":
            yield place
        if token.kind == "letter" and token.prose:
            yield place
            return
        if token.kind == "macro" and token.text in ("sec", "min", "Omega") and place == len(of) - 1:
            yield place
        if is_symbol(token) and (token.gap or of[place - 1].text == "/"):
            yield place
        if token.text == "/" and place + 1 < len(of) and (of[place + 1].kind == "word" or of[place + 1].prose):
            yield place
            return


def _words(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    """Words alone, with what a text has between them; words for a number are that number."""
    if not any(token.kind == "word" for token in of):
        return None
    if any(token.kind == "macro" or (token.kind == "mark" and token.text not in ".,'-!?()") for token in of):
        return None
    words = [token.text.lower() for token in of if token.kind != "mark"]
    value = number_in_words(words)
    if value is not None:
        return Quantity(number(value))
    return Words(tuple(singular(word) for word in words if word not in _ARTICLES) or tuple(words))


def _phrase(of: Sequence[Token], several: bool, nesting: int) -> Form | None:
    """Words that mean what others, or a sign, mean too."""
    return _PHRASES.get(" ".join(token.text.lower() for token in of)) if len(of) < 6 else None


_READERS = (
    *(_phrase, _clock, _listing, _relation, _plus_minus, _union, _bracketed),
    *(_matrix, _ratio, _based, _quantity, _words),
)
