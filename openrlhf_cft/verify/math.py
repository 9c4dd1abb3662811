r"""Mathematical answers, graded exactly as OpenRLHF grades them, without evaluating what a model wrote.

Annotation and reinforcement learning have to agree on what is correct, so the grader is OpenRLHF's own `grade_answer`
(`openrlhf/utils/math_utils.py`), loaded by location: importing `openrlhf` would bring torch and DeepSpeed.

It compares normalised strings first, then hands what is left to sympy's `parse_expr`, which calls `eval`. So the
private copy of the module parses only what consists of numbers, symbols, arithmetic and known mathematical names.
Whatever else it meets counts as not parsable, which is how the grader already treats a syntax error. It still may
compute for ever (`9**9**9**9`) or without bound: run it in `verify.sandbox`.

    judge_math(r"so it is \boxed{\frac{1}{2}}", "1/2")   # Judgement(CORRECT, "\frac{1}{2}", "boxed")
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

from openrlhf_cft.records import Verdict
from openrlhf_cft.verify.extract import extract_answer, gold_answer
from openrlhf_cft.verify.judgement import Judgement

MAX_ANSWER_CHARS = 2_000  # longer than any answer; beyond it only the simpler normalisation is applied, in linear time
MAX_EXPRESSION_CHARS = 1_000  # of the difference "(gold)-(answer)" that is parsed

_OPERATORS = frozenset("+ - * / // ** ^ ( ) , ! !!".split())
# Mathematics among the names that `from sympy import *` defines. The grader lower-cases an expression and refuses more
# than two different letters outside "sqrt" and "frac", so no other function of an answer (sin, log) could be reached.
_FUNCTIONS = frozenset("sqrt frac pi ln csc re im oo zoo nan".split())
# sympy's notation of a repeating decimal, 0.1[6]: the only place of square brackets in a number.
_REPETEND = re.compile(r"(\d*\.\d*)\[\d+\]")


class _Exhausted(BaseException):
    """Out of memory or stack. Not an `Exception`, so that the grader's `except Exception` does not call it wrong."""


def judge_math(response: str, answer: str) -> Judgement:
    """Extract the answer of a response and compare it with the gold answer.

    Args:
        response: text of a model, of any length and content.
        answer: the gold answer, LaTeX or plain; of a whole solution (GSM8K's `#### x`, or boxed) what it marks.

    Returns:
        `CORRECT`, `WRONG` or `UNPARSABLE`, with the extracted answer.

    Raises:
        ImportError: OpenRLHF is not installed.
        MemoryError, RecursionError: grading met a limit of the process; the sandbox makes it a verdict.
    """
    found = extract_answer(response)
    if found is None:
        return Judgement(Verdict.UNPARSABLE)
    try:
        correct = _equal(found[0], gold_answer(answer))
    except _Exhausted as error:
        raise error.args[0] from None
    return Judgement(Verdict.CORRECT if correct else Verdict.WRONG, *found)


@functools.lru_cache(maxsize=4096)
def _equal(answer: str, gold: str) -> bool:
    """OpenRLHF's verdict on an extracted answer. Cached: the rollouts of one prompt mostly end in a few answers."""
    grader = load_grader()
    if len(answer) > MAX_ANSWER_CHARS:
        return bool(grader.grade_answer_mathd(answer, gold))
    return bool(grader.grade_answer(answer, gold))


@functools.cache
def load_grader() -> ModuleType:
    """A private copy of OpenRLHF's `math_utils` that refuses to parse what is not mathematics.

    Raises:
        ImportError: OpenRLHF is not installed, or has no such file.
    """
    grader = load_stock_grader()
    # The LaTeX reader logs every malformed answer; malformed answers are everyday input here.
    logging.getLogger("pylatexenc").setLevel(logging.ERROR)
    grader._sympy_parse = _guarded(grader._sympy_parse)  # type: ignore[attr-defined]
    grader.sympy = SimpleNamespace(simplify=_exhausting(grader.sympy.simplify))  # type: ignore[attr-defined]
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


def _guarded(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """`parse`, for expressions of mathematics only."""
    checked = _exhausting(parse)

    def parse_mathematics(expression: str) -> Any:
        check_expression(expression)
        return checked(expression)

    return parse_mathematics


def _exhausting(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, with exhaustion raised past the grader's `except Exception`."""

    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except (MemoryError, RecursionError) as error:
            raise _Exhausted(error) from None

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
