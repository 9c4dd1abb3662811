r"""Answers as tokens: LaTeX, plain text and Unicode of the same meaning become the same tokens.

    tokens(r"\dfrac12\,\text{cm}")      # \frac 12 cm, as Token objects
    key(tokens("½ cm")) == key(tokens(r"\frac{1}{2}\text{ cm}"))        # False: braces stay; see `verify.expression`

Only marks that never have a meaning are dropped: white space, sizes of brackets and fractions, dollar signs, emphasis.
An unknown macro stays. An answer with such a macro equals only its own notation. Takes linear time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

MAX_PRODUCT = 3  # up to this many letters without a space in between are a product, unless they are a word
SHORT_WORDS = frozenset(
    "yes no odd even all any one two six ten sin cos tan cot sec csc log ln lg gcd lcm min max mon tue wed thu fri "
    "sat sun jan feb mar apr may jun jul aug sep oct nov dec and or not the dne none cm mm km kg mg ft in lb oz hr am "
    "pm".split()
)

Kind = Literal["number", "letter", "word", "macro", "mark"]


@dataclass(frozen=True)
class Token:
    """A number, letter, word, LaTeX macro (without its backslash) or any other character.

    `parts` are the groups of a number with plain commas as thousands separators: `1,234` may be 1234 or two numbers,
    `1{,}234` and `1,\\!234` are 1234.
    """

    kind: Kind
    text: str
    gap: bool = False  # white space comes before it
    prose: bool = False  # inside of \text{} and similar
    parts: tuple[str, ...] = ()


_INVISIBLE = dict.fromkeys(
    [0xAD, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0x2061, 0x2062, 0x2063, 0xFEFF, 0xFE0E, 0xFE0F]
)
_GREEK = dict(
    zip(
        "αβγδεϵζηθϑικλμνξπρστυφϕχψωΓΔΘΛΞΠΣΦΨΩ",
        (
            "alpha beta gamma delta epsilon epsilon zeta eta theta theta iota kappa lambda mu nu xi pi rho sigma tau "
            "upsilon phi phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
        ).split(),
        strict=True,
    )
)
_SIGNS = {
    **{dash: "-" for dash in "‐‑‒–—―−﹣－"},
    **{sign: f"\\{name} " for sign, name in _GREEK.items()},
    **{"×": "\\times ", "✕": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ", "•": "\\cdot ", "∗": "*"},
    **{"÷": "\\div ", "⁄": "/", "∕": "/", "±": "\\pm ", "∓": "\\mp ", "≤": "\\le ", "⩽": "\\le ", "≥": "\\ge "},
    **{
        "⩾": "\\ge ",
        "≠": "\\ne ",
        "≈": "\\approx ",
        "≡": "\\equiv ",
        "∞": "\\infty ",
        "√": "\\sqrt ",
        "∛": "\\sqrt[3]",
    },
    **{"∈": "\\in ", "∉": "\\notin ", "∪": "\\cup ", "∩": "\\cap ", "∅": "\\emptyset ", "⊂": "\\subset "},
    **{
        "→": "\\to ",
        "⇒": "\\Rightarrow ",
        "⇔": "\\iff ",
        "∧": "\\wedge ",
        "∨": "\\vee ",
        "¬": "\\neg ",
        "∠": "\\angle ",
    },
    **{"°": "^\\circ ", "º": "^\\circ ", "′": "'", "″": "''", "’": "'", "‘": "'", "“": '"', "”": '"', "∣": "|"},
    **{"，": ", ", "、": ", ", "；": "; ", "。": ".", "：": ":", "…": "\\ldots ", "\u2009": "\\,", "\u202f": "\\,"},
    **{"ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}", "ℚ": "\\mathbb{Q}", "ℂ": "\\mathbb{C}"},
    **{"∂": "\\partial ", "∫": "\\int ", "∑": "\\sum ", "∏": "\\prod ", "⌊": "\\lfloor ", "⌋": "\\rfloor "},
    **{"⌈": "\\lceil ", "⌉": "\\rceil ", "⟨": "\\langle ", "⟩": "\\rangle ", "∥": "\\parallel ", "⊥": "\\perp "},
}
_VULGAR = {
    vulgar[0]: f"\\frac{{{vulgar[1]}}}{{{vulgar[2]}}}"
    for vulgar in ("½12 ⅓13 ⅔23 ¼14 ¾34 ⅕15 ⅖25 ⅗35 ⅘45 ⅙16 ⅚56 ⅐17 ⅛18 ⅜38 ⅝58 ⅞78 ⅑19".split())
}
_TABLE = str.maketrans({**_SIGNS, **_VULGAR}) | _INVISIBLE
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎", "0123456789+-()", strict=True))
_RAISED = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_LOWERED = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")

_SAME_MACRO = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), "frac"),
    **dict.fromkeys(("dbinom", "tbinom"), "binom"),
    **dict.fromkeys(("le", "leq", "leqslant", "leqq"), "<="),
    **dict.fromkeys(("ge", "geq", "geqslant", "geqq"), ">="),
    **dict.fromkeys(("ne", "neq"), "!="),
    **dict.fromkeys(("cdot", "ast"), "*"),
    "times": "×",  # a product of numbers, or of vectors, which does not commute
    **{"langle": "(", "rangle": ")", "bmod": "mod"},
    **dict.fromkeys(("varnothing", "empty"), "emptyset"),
    **dict.fromkeys(("mid", "vert", "lvert", "rvert"), "|"),
    **dict.fromkeys(("lVert", "rVert", "Vert"), "||"),
    **dict.fromkeys(("rightarrow", "longrightarrow"), "to"),
    **dict.fromkeys(("land",), "wedge"),
    **dict.fromkeys(("lor",), "vee"),
    **dict.fromkeys(("lnot",), "neg"),
    **{"lt": "<", "gt": ">", "div": "/", "colon": ":", "lbrack": "[", "rbrack": "]", "prime": "'", "simeq": "approx"},
    **{"varphi": "phi", "varepsilon": "epsilon", "vartheta": "theta", "lbrace": "\\{", "rbrace": "\\}"},
    **{"implies": "Rightarrow", "Longrightarrow": "Rightarrow", "leftrightarrow": "iff", "Leftrightarrow": "iff"},
    **{
        "degree": "circ",
        "arcctg": "arccot",
        "tg": "tan",
        "ctg": "cot",
        "cosec": "csc",
        "dots": "ldots",
        "cdots": "ldots",
    },
}
_NEGATED = {"=": "!=", "in": "notin", "approx": "napprox", "equiv": "nequiv"}
# Macros for layout only.
_NOTHING = frozenset(
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr middle displaystyle textstyle "
    "scriptstyle "
    "limits nolimits quad qquad thinspace enspace , ; : ! > ( ) [ ] hfill bf rm it boldsymbol boldmath".split()
)
_PROSE = frozenset(
    "text textbf textit textrm textsf texttt textnormal mathrm mathbf mathit mathsf mathtt mbox hbox bm "
    "operatorname operatorname* emph underline".split()
)
# Mathematics that may be written without a backslash.
FUNCTIONS = frozenset(
    "sqrt sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth log ln lg exp "
    "min max gcd lcm".split()
)
_PLAIN_NAMES = FUNCTIONS | {*_GREEK.values()} | {"infty"}
_ALIASES = {"infinity": "infty", "asin": "arcsin", "acos": "arccos", "atan": "arctan"}

# Between thousands: a comma, with or without LaTeX's narrow spaces, or a narrow space alone.
_COMMA = r"(?:,|\{,\})(?:\s?\\!\s?)?"
_SPACE = r"(?:\\[,!]|\\ |~| )"
_EXPONENT = r"(?:[eE][+-]?\d{1,4}(?!\w))?"
_TOKEN = re.compile(
    r"(?P<repeating>\d{0,40}\.\d{0,40}(?=\\(?:overline|dot|bar)\b))"
    rf"|(?P<grouped>[1-9]\d{{0,2}}(?:{_COMMA}\d{{3}})+(?![\d]|{_COMMA}\d)(?:\.\d+)?)"
    rf"|(?P<spaced>[1-9]\d{{0,2}}(?:{_SPACE}\d{{3}})+(?!\d|\s?/|{_SPACE}?\d)(?:\.\d+)?)"
    rf"|(?P<number>(?:\d+(?:\.\d+)?|\.\d+){_EXPONENT})"
    r"|\\(?P<macro>operatorname\*|[A-Za-z]+|.)"
    r"|(?P<letters>[A-Za-z]+)"
    r"|(?P<space>[\s~]+)"
    r"|(?P<relation><=|>=|=<|(?<=\s)!=)"
    r"|(?P<mark>.)",
    re.DOTALL,
)
_LONE = re.compile(r"\{([:=<>])\}")  # braces that keep TeX from putting space around a sign
_PRIME = re.compile(r"\^\s{0,3}(?:\{\s{0,3}(?:\\prime\s{0,3}){1,3}\}|\\prime\b)")
_POWER = re.compile(r"(?<=[\w)\]}])\*\*(?=[\w({\\-])")  # Python's power; elsewhere ** is Markdown's
_LOOSE = re.compile(rf"{_COMMA}|{_SPACE}")


def plain(text: str) -> str:
    """The text with its mathematics in ASCII: signs become LaTeX, digits ASCII; invisible characters are removed."""
    if text.isascii():
        return text
    text = _RAISED.sub(lambda run: "^{" + "".join(_SUPERSCRIPTS[c] for c in run.group()) + "}", text)
    text = _LOWERED.sub(lambda run: "_{" + "".join(_SUBSCRIPTS[c] for c in run.group()) + "}", text)
    text = text.translate(_TABLE)
    if text.isascii():
        return text
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    return unicodedata.normalize("NFKC", text).translate(_TABLE)


def tokens(text: str) -> list[Token]:
    """The tokens of an answer, without marks that have no meaning.

    Args:
        text: of any content; the time is linear in its length.
    """
    read: list[Token] = []
    braces: list[bool] = []  # for each open brace, whether it belongs to \text{} or similar
    prose = gap = False
    opens_prose = False  # the last token was \text or similar
    text = _without_delimiters(plain(text))
    for match in _TOKEN.finditer(text):
        kind, value = match.lastgroup or "mark", match[match.lastgroup or 0]
        if kind == "space":
            gap = True
            continue
        if opens_prose and value != "{":  # \rm and similar, or \text without braces
            opens_prose = False
        if kind == "mark" and value == "{":
            braces.append(opens_prose)
            if opens_prose:
                prose, opens_prose = True, False
                continue
        elif kind == "mark" and value == "}":
            if braces and braces.pop():
                prose = any(braces)
                gap = True
                continue
        elif kind == "macro":
            if value in _PROSE:
                opens_prose = True
                continue
            if value.isspace() or value in _NOTHING:
                gap = gap or value not in ("!", "left", "right", "displaystyle")
                continue
        elif kind == "mark" and value in ("`", '"'):
            continue
        read.append(_token(kind, value, gap, prose))
        gap = False
    return _joined(read)


def _joined(of: list[Token]) -> list[Token]:
    r"""The tokens with `3 x 10^8` as a product, and with `\not=` and `\not\in` as one sign."""
    joined: list[Token] = []
    for place, token in enumerate(of):
        before = joined[-1] if joined else None
        if token.text in ("x", "X") and before is not None and before.kind == "number":
            if [other.text for other in of[place + 1 : place + 3]] == ["10", "^"]:
                token = Token("mark", "×", token.gap)
        elif before is not None and before.kind == "macro" and before.text == "not" and token.text in _NEGATED:
            joined.pop()
            token = Token("mark" if token.text == "=" else "macro", _NEGATED[token.text], before.gap)
        joined.append(token)
    return joined


def key(of: Iterable[Token]) -> tuple[str, ...]:
    """A key that is equal for answers with the same notation: words without case, all else as it is."""
    return tuple(_key(token) for token in of)


def _key(token: Token) -> str:
    if token.kind == "macro":
        return f"\\{token.text}"
    if token.kind == "word" and (token.prose or len(token.text) > MAX_PRODUCT or token.text.lower() in SHORT_WORDS):
        return token.text.lower()
    return token.text


def _token(kind: str, value: str, gap: bool, prose: bool) -> Token:
    if kind == "grouped":
        parts = tuple(_LOOSE.split(value))
        surely = "{" in value or "!" in value
        return Token("number", "".join(parts), gap, prose, () if surely else parts)
    if kind == "spaced":
        return Token("number", _LOOSE.sub("", value), gap, prose)
    if kind in ("number", "repeating"):
        return Token("number", value.lower(), gap, prose)
    if kind == "letters":
        lower = _ALIASES.get(value.lower(), value)
        if lower in _PLAIN_NAMES and not (prose and lower not in FUNCTIONS):
            return Token("macro", lower, gap)
        return Token("letter" if len(value) == 1 else "word", value, gap, prose)
    if kind == "relation":
        return Token("mark", {"=<": "<="}.get(value, value), gap, prose)
    if kind == "macro":
        name = _SAME_MACRO.get(value, value)
        if name.isalpha() or name in ("\\", "{", "}"):
            return Token("macro", name, gap, prose)
        if value == "|":
            return Token("mark", "||", gap, prose)
        if value == "$":
            return Token("mark", "$", gap, prose)
        return Token("macro" if name.startswith("\\") else "mark", name.lstrip("\\") or "\\", gap, prose)
    return Token("mark", value, gap, prose)


def _without_delimiters(text: str) -> str:
    r"""The text without the dollar signs around mathematics and without Markdown's emphasis; a single `$` is money."""
    text = _POWER.sub("^", text).replace("**", " ").replace("__", " ")
    text = _LONE.sub(r"\1", text.replace("...", "\\ldots "))
    text = _PRIME.sub(lambda match: "'" * match.group().count("prime"), text)
    unescaped = re.sub(r"\\.", "", text, flags=re.DOTALL).count("$")
    if unescaped and unescaped % 2 == 0:
        text = re.sub(r"(?<!\\)\$", " ", text)
    return text
