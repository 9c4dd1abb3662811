r"""Whether an answer is the gold answer. Plain numbers are compared directly, all else by the gold answer's form.

equal("x = 0.5", r"\frac12")      # True: a name may stand before a value
equal("50", r"\frac12")           # False
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from fractions import Fraction

from openrlhf_cft.verify.comparison import same_form
from openrlhf_cft.verify.domains import without_domains
from openrlhf_cft.verify.forms import Listing
from openrlhf_cft.verify.grouping import same_notation
from openrlhf_cft.verify.notation import Token, tokens
from openrlhf_cft.verify.options import lettered, same_option, without_label
from openrlhf_cft.verify.reading import read
from openrlhf_cft.verify.value import EXACT, Tolerance

MAX_CHARS = 4_000  # longer than any answer; beyond it only the same notation is equal
_PLAIN_NUMBER = re.compile(r"[-+]?(?:(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)", re.ASCII)


def equal(answer: str, gold: str, tolerance: Tolerance = EXACT) -> bool:
    """Whether an extracted answer equals the gold answer. Cached: most rollouts of a prompt end in a few answers.

    Args:
        answer: of any content.
        gold: LaTeX, plain text or Unicode.
        tolerance: the difference up to which numbers count as equal.
    """
    if len(gold) > MAX_CHARS or len(answer) > MAX_CHARS:  # not cached either
        return bool(gold.strip()) and answer.split() == gold.split()
    return _equal(answer, gold, tolerance)


def forget() -> None:
    """Empty the cache of `equal`, to measure it."""
    _equal.cache_clear()


@functools.lru_cache(maxsize=4096)
def _equal(answer: str, gold: str, tolerance: Tolerance) -> bool:
    numbers = plain_number(answer), plain_number(gold)
    if numbers[0] is not None and numbers[1] is not None:  # most answers
        return abs(numbers[0] - numbers[1]) <= tolerance.of(numbers[1])
    wanted, given = _meaningful(tokens(gold)), _meaningful(tokens(answer))
    if not wanted:
        return False
    if same_notation(wanted, given) or _same_word(wanted, given):
        return True
    compare = functools.partial(_same, tolerance=tolerance)
    option = lettered(wanted)
    if option is not None:
        return same_option(option, given, compare)
    if compare(wanted, given):
        return True
    value = without_label(wanted, given)
    return value is not None and compare(wanted, value)


def plain_number(text: str) -> Fraction | None:
    """The value of an integer or decimal number, with or without thousands separators; None for all else."""
    text = text.strip()
    if len(text) > MAX_CHARS or not _PLAIN_NUMBER.fullmatch(text):
        return None
    return Fraction(text.replace(",", "").removesuffix("."))


def _same(gold: Sequence[Token], answer: Sequence[Token], tolerance: Tolerance) -> bool:
    """Whether both are equal, with or without a remark about the domain of an index."""
    bare = without_domains(gold, answer)
    return _same_as_written(gold, answer, tolerance) or (bare is not None and _same_as_written(*bare, tolerance))


def _same_as_written(gold: Sequence[Token], answer: Sequence[Token], tolerance: Tolerance) -> bool:
    form = read(gold)
    return same_form(form, read(answer, several=isinstance(form, Listing)), tolerance)


def _meaningful(of: list[Token]) -> list[Token]:
    """The tokens without the dot that ends a sentence; empty if there are only marks without a meaning."""
    if all(token.kind == "mark" and token.text in "$.,;:{}" for token in of):
        return []
    while of and of[-1].kind == "mark" and of[-1].text == "." and not (len(of) > 2 and of[-3].text == "."):
        of = of[:-1]
    return of


def _same_word(gold: Sequence[Token], answer: Sequence[Token]) -> bool:
    """Whether both are the same single word, with or without a capital: Tom and tom, but not GM and Gm."""
    if len(gold) != 1 or len(answer) != 1 or gold[0].kind != "word" or answer[0].kind != "word":
        return False
    return gold[0].text.lower() == answer[0].text.lower() and gold[0].text[1:] == answer[0].text[1:]
