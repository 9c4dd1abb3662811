r"""Mathematical expressions, read from tokens.

    parse(tokens(r"\frac{1}{\sqrt{2}}"))       # Node("/", (1, Node("root", (2, 2))))

An unknown symbol makes an expression unreadable. `verify.value` compares the expressions that were read.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from openrlhf_cft.verify.function_names import CONSTANTS, MAX_DEPTH, NameReader
from openrlhf_cft.verify.nodes import Node, Unreadable, decimal, number
from openrlhf_cft.verify.notation import FUNCTIONS, Token

MAX_DIGITS = 1_000  # digits of one number
_GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega hbar ell nabla partial".split()
)
_DECORATIONS = frozenset(
    "overline bar hat widehat tilde widetilde vec overrightarrow dot ddot mathbb mathcal mathfrak mathscr".split()
)
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_FENCES = {"lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil")}


def parse(of: Sequence[Token]) -> Node:
    """Read tokens as an expression.

    Raises:
        Unreadable: they are not an expression, or hold an unknown symbol.
    """
    reader = _Reader(of)
    node = reader.sum()
    if reader.next is not None:
        raise Unreadable(f"{reader.next.text!r} was not expected")
    return node


class _Reader(NameReader):
    """Recursive descent over tokens."""

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
        """Factors with *, / or nothing between them. After a slash, a letter includes the factors written directly
        after it: `a/bc` is a/(bc), but `1/2x` is x/2."""
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
        """Whether the next token can be a factor without a sign before it. Two adjacent numbers are not a product."""
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
        """A power, with the signs after it: `!`, `%`, `^`."""
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
        """`1 1/2` and `1\\frac{1}{2}` as sums; anything else as it is."""
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
                return Node("of", (token.text, self._group(")")))  # f(g(x)) is not a product
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
        """The argument of a macro: braces, or one token. Unless `whole`, only the first digit of a number is taken."""
        if self._is("{"):
            return self._braces()
        token = self.next
        if token is not None and token.kind == "number" and not whole and len(token.text) > 1:
            self._tokens[self._at] = Token("number", token.text[1:])
            return number(decimal(token.text[0]))
        return self._atom()

    def _macro(self, token: Token) -> Node:
        name = token.text
        if name == "frac":
            return self._fraction()
        if name == "binom":
            return Node("binom", (self._argument(whole=False), self._argument()))
        if name in FUNCTIONS:
            return self._function(name)
        if name in CONSTANTS:
            return Node(CONSTANTS[name])
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
