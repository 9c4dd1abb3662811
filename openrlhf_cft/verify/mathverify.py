r"""Math-Verify as the second grader: sets, intervals, matrices, relations, which OpenRLHF's compares as strings.

    math_verify_equal(r"\{2, 1\}", r"\{1, 2\}")        # True

Its LaTeX parser builds sympy objects and evaluates no text. Its reader of plain expressions does, through sympy's
`parse_expr`: that one gets the guard of `grader.check_expression`. Its time limits need a signal of the main thread
and are off: run it in `verify.sandbox`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from openrlhf_cft.verify.grader import exhausting, guarded


def math_verify_equal(answer: str, gold: str) -> bool:
    """Whether Math-Verify calls the extracted answer equal to the gold answer.

    Raises:
        ImportError: math-verify is not installed.
        Exhausted: out of memory or stack.
    """
    parse, verify = _load()
    read_gold = parse(f"\\boxed{{{gold}}}")
    return bool(read_gold) and bool(verify(read_gold, parse(f"\\boxed{{{answer}}}")))


@functools.cache
def _load() -> tuple[Callable[[str], list[Any]], Callable[[Any, Any], bool]]:
    """Math-Verify's `parse` and `verify`, without time limits, guarded, with exhaustion raised past its handlers."""
    try:
        from math_verify import grader, parser
    except ImportError as error:
        raise ImportError("the math verifier needs Math-Verify: pip install 'math-verify[antlr4_13_2]'") from error
    for name in ("math_verify", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # each malformed answer, and that there is no time limit
    parser.latex2sympy = exhausting(parser.latex2sympy)
    parser.parse_expr_cached = guarded(parser.parse_expr_cached)
    grader.sympy_expr_eq = exhausting(grader.sympy_expr_eq)
    return (
        functools.partial(parser.parse, parsing_timeout=None),
        functools.partial(grader.verify, timeout_seconds=None),
    )
