"""Judges hostile code in this process, prints the names that evaluated code used. Started by `test_verify_corpus.py`.

A judgement evaluates what sympy's parser makes of numbers, symbols and arithmetic: calls of `Integer`, `Symbol` and
the like. An audit hook sees every code object that is run by `eval` or `exec`.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import CodeType
from typing import Any

from hostile import GOLD, corpus

from openrlhf_cft.verify.math import judge_math

judging = False
names: set[str] = set()
others: set[str] = set()


def names_of(code: CodeType) -> set[str]:
    """The names of a code object and of those in it."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(names_of, inner))


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not judging:
        return
    if event == "exec" and arguments[0].co_filename == "<string>":
        names.update(names_of(arguments[0]))
    elif event.startswith(("os.", "subprocess.", "socket.", "shutil.", "import ")):
        others.add(event)


def give_up(number: int, frame: Any) -> None:
    raise TimeoutError


judge_math("\\boxed{x + \\frac{1}{2}}", "\\{1,x\\}")
sys.addaudithook(watch)
signal.signal(signal.SIGALRM, give_up)
kinds = corpus(Path(sys.argv[1]))
for response in [*kinds["code"], *kinds["bytes"], *kinds["unicode"]]:
    signal.setitimer(signal.ITIMER_REAL, 5.0)
    judging = True
    try:
        judge_math(response, GOLD)
    except (TimeoutError, RecursionError, MemoryError):
        pass
    finally:
        judging = False
        signal.setitimer(signal.ITIMER_REAL, 0)
print(sorted(names))
print(sorted(others))
