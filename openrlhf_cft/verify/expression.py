r"""Mathematical expressions, read from tokens.

    parse(tokens(r"\frac{1}{\sqrt{2}}"))       # Node("/", (1, Node("root", (2, 2))))

What is not known here makes an expression unreadable; `verify.value` compares those that were read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from openrlhf_cft.verify.notation import FUNCTIONS, MAX_PRODUCT, Token, key

MAX_DEPTH = 40  # of nested brackets, fractions, roots and functions
MAX_DIGITS = 1_000  # of a number
MAX_EXPONENT = 10_000  # of a number's decimal exponent


class Unreadable(ValueError):
    """The tokens are no expression."""


@dataclass(frozen=True)
class Node:
    """An operation and its operands: numbers, letters, other operations."""

    op: str
    args: tuple[Any, ...] = ()

    @property
    def nodes(self) -> Iterator[Node]:
        """This one and all below it."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack += [arg for arg in node.args if isinstance(arg, Node)]

    @property
    def letters(self) -> frozenset[str]:
        """The names of its variables."""
        return frozenset(str(node.args[0]) for node in self.nodes if node.op == "letter")


def number(value: Fraction | int) -> Node:
    """A constant."""
    return Node("number", (Fraction(value),))


_CONSTANTS = {"pi": "pi", "infty": "infty", "e": "e", "i": "i"}
_GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega hbar ell nabla partial".split()
)
_DECORATIONS = frozenset(
    "overline bar hat widehat tilde widetilde vec overrightarrow dot ddot mathbb mathcal mathfrak mathscr".split()
)
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_FENCES = {"lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil")}
_TWO = {"min", "max", "gcd", "lcm"}


def parse(of: Sequence[Token]) -> Node:
    """The expression that these tokens are.

    Raises:
        Unreadable: they are none, or hold what is not known here.
    """
    reader = _Reader(of)
    node = reader.sum()
    if reader.next is not None:
        raise Unreadable(f"{reader.next.text!r} was not expected")
    return node


def _letters(token: Token) -> list[Token]:
    """A word as the letters that are multiplied, where it is short and no function's name."""
    if token.kind != "word" or token.prose or token.text in FUNCTIONS or len(token.text) > MAX_PRODUCT:
        return [token]
    return [Token("letter", letter, token.gap and not place) for place, letter in enumerate(token.text)]


class _Reader:
    """Recursive descent over tokens."""

    def __init__(self, of: Sequence[Token]) -> None:
        self._tokens = [letter for token in of for letter in _letters(token)]
        self._at = 0
        self._depth = 0
        self._bars = 0  # open absolute values

    @property
    def next(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self) -> Token:
        token = self.next
        if token is None:
            raise Unreadable("the expression ends too early")
        self._at += 1
        return token

    def _is(self, *texts: str, ahead: int = 0) -> bool:
        place = self._at + ahead
        return place < len(self._tokens) and self._tokens[place].text in texts and not self._tokens[place].prose

    def _expect(self, text: str) -> None:
        if not self._is(text):
            raise Unreadable(f"{text!r} is missing")
        self._at += 1

    def sum(self) -> Node:
        """Terms with + or - between them."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("too deep")
        node = self._term()
        while self._is("+", "-"):
            op = self._take().text
            right = self._term()
            node = Node("+", (node, right if op == "+" else Node("-", (right,))))
        self._depth -= 1
        if self._is("over", "choose"):
            op = {"over": "/", "choose": "binom"}[self._take().text]
            return Node(op, (node, self.sum()))
        return node

    def _term(self) -> Node:
        """Factors with *, / or nothing between them. A letter below a slash takes what is written beside it along:
        `a/bc` is a/(bc), but `1/2x` is x/2."""
        if self._is("-", "+"):
            negative = self._take().text == "-"
            node = self._term()
            return Node("-", (node,)) if negative else node
        node = self._factor(first=True)
        while True:
            if self._is("*", "/", "×"):
                before, op = self._tokens[self._at - 1], self._take().text
                if before.text == "nabla":
                    raise Unreadable("a differential operator")
                if op == "×":
                    op = "*"
                    if self.next and (before.prose or before.text == "}") and (self.next.prose or self._is("vec")):
                        raise Unreadable("a product of vectors")
                right = self._signed()
                if op == "/" and right.op != "number":
                    while self._begins_factor():
                        right = Node("*", (right, self._factor()))
                node = Node(op, (node, right))
            elif self._is("mod"):
                self._take()
                node = Node("mod", (node, self._signed()))
            elif self._begins_factor():
                node = Node("*", (node, self._factor()))
            else:
                return node

    def _signed(self) -> Node:
        negative = False
        while self._is("-", "+"):
            negative ^= self._take().text == "-"
        node = self._factor()
        return Node("-", (node,)) if negative else node

    def _begins_factor(self) -> bool:
        """Whether the next token can be multiplied without a sign. Two numbers side by side are no product."""
        token = self.next
        if token is None:
            return False
        if token.kind == "number":  # 5!5!
            return self._tokens[self._at - 1].text == "!"
        if token.kind in ("letter", "word"):
            return True
        if token.kind == "macro":
            return token.text not in ("}", "\\", "rfloor", "rceil", "mod", "pm", "mp", "over", "choose")
        return token.text in ("(", "[", "{") or (token.text == "|" and not self._bars)

    def _factor(self, first: bool = False) -> Node:
        """A power, with what stands behind it."""
        start = self._at
        node = self._atom()
        if first and node.op == "number":
            node = self._mixed(node, start)
        while True:
            if self._is("!"):
                self._take()
                node = Node("!", (node,))
            elif self._is("%"):
                self._take()
                node = Node("/", (node, number(100)))
            elif self._is("^"):
                self._take()
                node = self._raised(node)
            else:
                return node

    def _raised(self, base: Node) -> Node:
        if self._is("circ") or (self._is("{") and self._is("circ", ahead=1) and self._is("}", ahead=2)):
            self._at += 1 if self._is("circ") else 3
            return Node("*", (base, Node("/", (Node("pi"), number(180)))))
        return Node("^", (base, self._exponent()))

    def _exponent(self) -> Node:
        if self._is("-", "+"):
            negative = self._take().text == "-"
            node = self._exponent()
            return Node("-", (node,)) if negative else node
        if self._is("{"):
            return self._braces()
        node = self._atom()
        if self._is("^"):  # a tower, from above
            self._take()
            node = self._raised(node)
        return node

    def _mixed(self, whole: Node, start: int) -> Node:
        """`1 1/2` and `1\\frac{1}{2}`, which are sums; anything else as it is."""
        value = whole.args[0]
        if value.denominator != 1 or self._at != start + 1:
            return whole
        rest = self._tokens[self._at :]
        texts = [token.text for token in rest[:7]]
        if texts[:2] == ["frac", "{"] and len(texts) == 7 and texts[3:5] == ["}", "{"] and texts[6] == "}":
            above, below = texts[2], texts[5]
            length = 7
        elif texts[:1] == ["frac"] and len(texts) > 1 and texts[1].isdecimal() and len(texts[1]) == 2:
            above, below = texts[1][0], texts[1][1]
            length = 2
        elif len(texts) > 2 and texts[1] == "/" and rest[0].gap:
            above, below = texts[0], texts[2]
            length = 3
        else:
            return whole
        if not (above.isdecimal() and below.isdecimal() and 0 < len(below) < 10 and 0 < int(above) < int(below)):
            return whole
        self._at += length
        return number(value + Fraction(int(above), int(below)))

    def _atom(self) -> Node:
        token = self._take()
        if token.kind == "number":
            return self._number(token)
        if token.kind == "letter":
            if token.text in "fgh" and self._is("(") and self._is(*"fgh", ahead=1) and self._is("(", ahead=2):
                self._take()
                return Node("of", (token.text, self._group(")")))  # f(g(x)) is no product
            return self._named(token.text)
        if token.kind == "word":
            if token.text not in FUNCTIONS:
                raise Unreadable(f"{token.text!r} is a word")
            return self._function(token.text)
        if token.kind == "macro":
            return self._macro(token)
        if token.text in _CLOSING:
            return self._group(_CLOSING[token.text])
        if token.text == "|":
            self._bars += 1
            node = self.sum()
            self._bars -= 1
            self._expect("|")
            return Node("abs", (node,))
        raise Unreadable(f"{token.text!r} is no value")

    def _number(self, token: Token) -> Node:
        if len(token.text) > MAX_DIGITS:
            raise Unreadable("a number of too many digits")
        if self._is("overline", "dot", "bar") and "." in token.text:
            return self._repeating(token.text)
        if self._is("_"):
            raise Unreadable("a number in another base")
        return number(decimal(token.text))

    def _repeating(self, text: str) -> Node:
        self._take()
        digits = self._braces_text() if self._is("{") else self._take().text
        if not (digits.isdecimal() and digits.isascii() and len(digits) <= 40):
            raise Unreadable("a repetend that is no digits")
        whole, _, fixed = text.partition(".")
        value = Fraction(int(whole + fixed or "0"), 10 ** len(fixed))
        return number(value + Fraction(int(digits), (10 ** len(digits) - 1) * 10 ** len(fixed)))

    def _braces_text(self) -> str:
        self._expect("{")
        text = self._take().text
        self._expect("}")
        return text

    def _braces(self) -> Node:
        self._expect("{")
        return self._group("}")

    def _group(self, closing: str) -> Node:
        bars, self._bars = self._bars, 0
        node = self.sum()
        self._bars = bars
        self._expect(closing)
        return node

    def _argument(self, whole: bool = True) -> Node:
        """What a macro takes: braces, or one token, of a number one digit unless `whole`."""
        if self._is("{"):
            return self._braces()
        token = self.next
        if token is not None and token.kind == "number" and not whole and len(token.text) > 1:
            self._tokens[self._at] = Token("number", token.text[1:])
            return number(decimal(token.text[0]))
        return self._atom()

    def _letter(self, name: str) -> Node:
        return Node(_CONSTANTS[name]) if name in _CONSTANTS else Node("letter", (name,))

    def _named(self, name: str) -> Node:
        """A variable with its index and primes; `v^2_0` is `v_0^2`."""
        indexed = name
        power: Node | None = None
        if self._is("^") and self._index_behind_power():
            self._take()
            power = self._braces() if self._is("{") else parse([self._take()])
        if self._is("_"):
            self._take()
            indexed += "_" + self._index()
        while self._is("'"):
            self._take()
            indexed += "'"
        node = self._letter(indexed)
        return node if power is None else Node("^", (node, power))

    def _index_behind_power(self) -> bool:
        """Whether `^` and one token, or braces, are followed by an index."""
        place, depth = self._at + 1, 0
        while place < len(self._tokens):
            depth += {"{": 1, "}": -1}.get(self._tokens[place].text, 0)
            if depth <= 0:
                break
            place += 1
        return place + 1 < len(self._tokens) and self._tokens[place + 1].text == "_"

    def _index(self) -> str:
        if not self._is("{"):
            return self._take().text
        depth = 0
        found: list[Token] = []
        while True:
            token = self._take()
            depth += {"{": 1, "}": -1}.get(token.text, 0)
            if depth == 0:
                return "".join(key(found))
            if token.text not in "{}":
                found.append(token)

    def _macro(self, token: Token) -> Node:
        name = token.text
        if name == "frac":
            return self._fraction()
        if name == "binom":
            return Node("binom", (self._argument(whole=False), self._argument()))
        if name in FUNCTIONS:
            return self._function(name)
        if name in _CONSTANTS:
            return Node(_CONSTANTS[name])
        if name in _GREEK:
            return self._named(f"\\{name}")
        if name in _FENCES:
            closing, op = _FENCES[name]
            node = self.sum()
            self._expect(closing)
            return Node(op, (node,))
        if name in _DECORATIONS:
            inner = "{" + self._index() + "}"
            return self._named(f"\\{name}{inner}")
        raise Unreadable(f"\\{name} is not known")

    def _fraction(self) -> Node:
        start = self._at
        above, below = self._argument(whole=False), self._argument()
        names = [token.text for token in self._tokens[start : self._at] if token.text not in "{}"]
        first = [node for node in (self._head(above), self._head(below)) if node in ("d", "\\partial")]
        if len(first) == 2 and len(names) <= 10:  # a derivative is no quotient
            return Node("letter", ("\\frac " + " ".join(names),))
        return Node("/", (above, below))

    def _head(self, node: Node) -> str:
        """The first letter of a product or power."""
        while node.op in ("*", "^"):
            node = node.args[0]
        return str(node.args[0]) if node.op == "letter" else ""

    def _function(self, name: str) -> Node:
        if name == "sqrt":
            return self._root()
        base: Node | None = None
        power: Node | None = None
        while self._is("_", "^"):
            mark = self._take().text
            argument = self._exponent() if mark == "^" else self._argument()
            base, power = (argument, power) if mark == "_" else (base, argument)
        if name in _TWO:
            return self._of_several(name)
        argument = self._function_argument()
        if name == "log":
            node = Node("log", (argument,)) if base is None else Node("log", (argument, base))
        elif base is not None:
            raise Unreadable(f"\\{name} with an index")
        elif name == "lg":
            node = Node("log", (argument, number(10)))
        elif power is not None and power == Node("-", (number(1),)) and name in ("sin", "cos", "tan", "cot"):
            return Node(f"arc{name}", (argument,))
        else:
            node = Node(name, (argument,))
        return node if power is None else Node("^", (node, power))

    def _function_argument(self) -> Node:
        """A bracket, or the factors up to the next sign or function."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("too deep")
        try:
            if self._is("("):
                self._take()
                return self._group(")")
            if self._is("-"):
                self._take()
                return Node("-", (self._function_argument(),))
            node = self._factor()
            while self._begins_factor() and not self._begins_function() and not self._is("("):
                node = Node("*", (node, self._factor()))
            return node
        finally:
            self._depth -= 1

    def _begins_function(self) -> bool:
        token = self.next
        return token is not None and token.text in FUNCTIONS and token.text != "sqrt"

    def _root(self) -> Node:
        index = number(2)
        if self._is("["):
            self._take()
            index = self._group("]")
        return Node("root", (self._argument(), index))

    def _of_several(self, name: str) -> Node:
        if not self._is("(", "{"):
            raise Unreadable(f"\\{name} of one")
        closing = {"(": ")", "{": "}"}[self._take().text]
        if closing == "}" and self._is("{"):  # \max\{1, 2\} has macros for braces
            raise Unreadable(f"\\{name} of what is no list")
        of = [self.sum()]
        while self._is(","):
            self._take()
            of.append(self.sum())
        self._expect(closing)
        return Node(name, tuple(of))


def decimal(text: str) -> Fraction:
    """The value of digits, with or without a decimal point and a decimal exponent."""
    mantissa, _, exponent = text.partition("e")
    if exponent and abs(int(exponent)) >= MAX_EXPONENT:
        raise Unreadable("too large a decimal exponent")
    return Fraction(mantissa.rstrip(".") or "0") * Fraction(10) ** int(exponent or 0)
