"""OpenRLHF's grader of mathematical answers, which evaluates nothing that a model wrote.

It is `grade_answer` of `openrlhf/utils/math_utils.py`, loaded by location: importing `openrlhf` would bring torch and
DeepSpeed. It compares normalised strings first, then hands what is left to sympy's `parse_expr`, which calls `eval`.
So the private copy of the module parses only numbers, symbols, arithmetic and known mathematical names.
Whatever else it meets counts as not parsable, which is how the grader already treats a syntax error. It still may
compute for ever (`9**9**9**9`) or without bound: run it in `verify.sandbox`.

    load_grader().grade_answer("0.5", r"\\frac{1}{2}")      # True
"""

from __future__ import annotations

import builtins
import functools
import importlib.util
import io
import keyword
import logging
import re
import tokenize
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

MAX_EXPRESSION_CHARS = 1_000  # of the difference "(gold)-(answer)" that is parsed

_OPERATORS = frozenset("+ - * / // ** ^ ( ) , ! !!".split())
# Mathematics among the names that `from sympy import *` defines. The grader lower-cases an expression and refuses more
# than two different letters outside "sqrt" and "frac", so no other function of an answer (sin, log) could be reached.
_FUNCTIONS = frozenset("sqrt frac pi ln csc re im oo zoo nan".split())
# sympy's notation of a repeating decimal, 0.1[6]: the only place of square brackets in a number.
_REPETEND = re.compile(r"(\d*\.\d*)\[\d+\]")


class Exhausted(BaseException):
    """Out of memory or stack. Not an `Exception`, so that a grader's `except Exception` does not call it wrong."""


@functools.cache
def load_grader() -> ModuleType:
    """A private copy of OpenRLHF's `math_utils` that refuses to parse what is not mathematics.

    Raises:
        ImportError: OpenRLHF is not installed, or has no such file.
    """
    grader = load_stock_grader()
    # The LaTeX reader logs every malformed answer; malformed answers are everyday input here.
    logging.getLogger("pylatexenc").setLevel(logging.ERROR)
    grader._sympy_parse = guarded(grader._sympy_parse)  # type: ignore[attr-defined]
    grader.sympy = SimpleNamespace(simplify=exhausting(grader.sympy.simplify))  # type: ignore[attr-defined]
    # On the main thread the grader sets an alarm of its own, in place of the sandbox's. Make it believe otherwise.
    grader.threading = SimpleNamespace(current_thread=object, main_thread=object)  # type: ignore[attr-defined]
    return grader


def load_stock_grader() -> ModuleType:
    """OpenRLHF's `math_utils` as it is, loaded from its file without importing `openrlhf`.

    Raises:
        ImportError: OpenRLHF is not installed, or has no such file.
    """
    package = importlib.util.find_spec("openrlhf")
    if package is None or not package.submodule_search_locations:
        raise ImportError(
            "the math verifier is OpenRLHF's grader, and openrlhf is not installed: pip install openrlhf"
        )
    path = Path(package.submodule_search_locations[0]) / "utils" / "math_utils.py"
    if not path.is_file():
        raise ImportError(f"{path} is missing; the math verifier needs an OpenRLHF that has it (0.11.2)")
    spec = importlib.util.spec_from_file_location("openrlhf_cft.verify._openrlhf_math_utils", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape sequence in that file
        spec.loader.exec_module(module)
    return module


def guarded(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """`parse`, for expressions of mathematics only."""
    checked = exhausting(parse)

    def parse_mathematics(expression: str) -> Any:
        check_expression(expression)
        return checked(expression)

    return parse_mathematics


def exhausting(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, with exhaustion raised past the grader's `except Exception`."""

    def call(*args: Any, **named: Any) -> Any:
        try:
            return function(*args, **named)
        except (MemoryError, RecursionError) as error:
            raise Exhausted(error) from None

    return call


def check_expression(expression: str) -> None:
    """Refuse an expression that is more than numbers, symbols, arithmetic and mathematical names.

    Tokens are taken as sympy's parser takes them, so nothing reaches `eval` that was not looked at: no attribute
    access (its dot would be an operator), no string, subscript, keyword, comparison or builtin.

    Raises:
        ValueError: names the offending token.
        tokenize.TokenError, SyntaxError: the expression has no tokens that Python can read.
    """
    if len(expression) > MAX_EXPRESSION_CHARS:
        raise ValueError(f"an expression of {len(expression)} characters is not an answer")
    plain = _REPETEND.sub(r"\1", expression)
    for token in tokenize.generate_tokens(io.StringIO(plain.strip()).readline):
        if not _is_mathematics(token):
            raise ValueError(f"{token.string!r} is not allowed in an answer")


def _is_mathematics(token: tokenize.TokenInfo) -> bool:
    """Whether a token may reach the parser."""
    if token.type == tokenize.NAME:
        return _is_symbol(token.string) or token.string in _FUNCTIONS
    if token.type == tokenize.NUMBER:
        return "_" not in token.string
    if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER):
        return token.string == ""
    return token.string in _OPERATORS  # `!` is an error token before Python 3.12


def _is_symbol(name: str) -> bool:
    """Whether sympy makes a plain symbol of this name, because neither it, sympy nor Python defines it."""
    if not name.isalnum() or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        return False
    return len(name) == 1 or not (hasattr(builtins, name) or name in _sympy_names())


@functools.cache
def _sympy_names() -> frozenset[str]:
    """What `from sympy import *` defines, the namespace in which expressions are evaluated."""
    import sympy

    return frozenset(dir(sympy))
