"""Read the named parts of an expression: variables with their indices, functions, fractions, roots."""

from __future__ import annotations

from openrlhf_cft.verify.cursor import Cursor
from openrlhf_cft.verify.nodes import Node, Unreadable, number
from openrlhf_cft.verify.notation import FUNCTIONS, Token, key

MAX_DEPTH = 40  # of nested brackets, fractions, roots and functions
CONSTANTS = {"pi": "pi", "infty": "infty", "e": "e", "i": "i"}
_TWO = {"min", "max", "gcd", "lcm"}


class NameReader(Cursor):
    """Reads names; the base class of the reader of expressions."""

    # The rest of an expression; `expression` implements these.
    def sum(self) -> Node:
        raise NotImplementedError

    def _factor(self, first: bool = False) -> Node:
        raise NotImplementedError

    def _begins_factor(self) -> bool:
        raise NotImplementedError

    def _exponent(self) -> Node:
        raise NotImplementedError

    def _argument(self, whole: bool = True) -> Node:
        raise NotImplementedError

    def _group(self, closing: str) -> Node:
        raise NotImplementedError

    def _braces(self) -> Node:
        raise NotImplementedError

    def _letter(self, name: str) -> Node:
        return Node(CONSTANTS[name]) if name in CONSTANTS else Node("letter", (name,))

    def _named(self, name: str) -> Node:
        """A variable with its index and primes; `v^2_0` is `v_0^2`."""
        indexed = name
        power: Node | None = None
        if self._is("^") and self._index_behind_power():
            self._take()
            power = self._braces() if self._is("{") else type(self)([self._take()]).sum()  # that token alone
        if self._is("_"):
            self._take()
            indexed += "_" + self._index()
        while self._is("'"):
            self._take()
            indexed += "'"
        node = self._letter(indexed)
        return node if power is None else Node("^", (node, power))

    def _index_behind_power(self) -> bool:
        """Whether an index follows `^` and its one token or braces."""
        place, depth = self._at + 1, 0
        while place < len(self._tokens):
            depth += {"{": 1, "}": -1}.get(self._tokens[place].text, 0)
            if depth <= 0:
                break
            place += 1
        return place + 1 < len(self._tokens) and self._tokens[place + 1].text == "_"

    def _index(self) -> str:
        if not self._is("{"):
            return "".join(key([self._take()]))
        depth = 0
        index: list[Token] = []
        while True:
            token = self._take()
            depth += {"{": 1, "}": -1}.get(token.text, 0)
            if depth == 0:
                return "".join(key(index))
            if token.text not in "{}":
                index.append(token)

    def _fraction(self) -> Node:
        start = self._at
        above, below = self._argument(whole=False), self._argument()
        names = [token.text for token in self._tokens[start : self._at] if token.text not in "{}"]
        first = [node for node in (self._head(above), self._head(below)) if node in ("d", "\\partial")]
        if len(first) == 2 and len(names) <= 10:  # a derivative is not a quotient
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
