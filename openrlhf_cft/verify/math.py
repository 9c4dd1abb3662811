r"""Mathematical answers: equal where OpenRLHF's grader says so, or Math-Verify does.

    judge_math(r"so it is \boxed{\frac{1}{2}}", "1/2")   # Judgement(CORRECT, "\frac{1}{2}", "boxed", 1.0)

Two well-kept libraries, because each misses forms that models write: OpenRLHF's refuses a set in another order, a
matrix in other brackets, 2/4 for 1/2; Math-Verify misses names, and numbers with a unit or a currency. Plain numbers,
which are most answers, are compared here, exactly: both libraries round.
"""

from __future__ import annotations

import functools
import math
import re
from fractions import Fraction

from openrlhf_cft.records import Verdict
from openrlhf_cft.verify.extract import extract_answer, gold_answer
from openrlhf_cft.verify.grader import Exhausted, load_grader
from openrlhf_cft.verify.judgement import Judgement
from openrlhf_cft.verify.mathverify import math_verify_equal

MAX_ANSWER_CHARS = (
    2_000  # longer than any answer; beyond it only the simplest normalisation is applied, in linear time
)

MAX_BRACKETS = 200
MAX_EXPONENT = 10_000  # 3^{2021} is an answer

_POWER = r"(?:\^|\*\*)[\s({-]{0,9}"
_TOWER = re.compile(rf"[\d\])}}]\s?{_POWER}(\d{{1,9}})[\s)}}]{{0,9}}{_POWER}(\d{{1,9}})", re.ASCII)
# An exponent or a factorial of five digits, of a power, of a factorial; a decimal exponent of four.
_EXCESSIVE = re.compile(
    rf"{_POWER}\d{{5}}|\d{{5}}[\s)]{{0,9}}!|!\s?\)?\s?!|{_POWER}\d{{1,9}}[)\s]{{1,9}}!|\de[+-]?\d{{4}}", re.ASCII
)
_PLAIN_NUMBER = re.compile(r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)", re.ASCII)

# OpenRLHF's grader drops the index of a root; Math-Verify that of a base (101_2), and reads a ratio as a quotient.
_INDEXED_ROOT = re.compile(r"\\sqrt\s?\[")
_NO_EXPRESSION = re.compile(r"\d\s?_\s?\{?\d|\d\s?:\s?\d")


def judge_math(response: str, answer: str, prompt: str = "") -> Judgement:
    """Extract the answer of a response and compare it with the gold answer.

    Args:
        response: text of a model, of any length and content.
        answer: the gold answer, LaTeX or plain; of a whole solution (GSM8K's `#### x`, or boxed) what it marks.
        prompt: not used.

    Returns:
        `CORRECT`, `WRONG` or `UNPARSABLE`, with the extracted answer; the score is 1 or 0.

    Raises:
        ImportError: OpenRLHF or Math-Verify is not installed.
        MemoryError, RecursionError: grading met a limit of the process; the sandbox makes it a verdict.
    """
    found = extract_answer(response)
    if found is None:
        return Judgement(Verdict.UNPARSABLE, score=0.0)
    try:
        correct = equal(found[0], gold_answer(answer))
    except Exhausted as error:
        raise error.args[0] from None
    return Judgement(Verdict.CORRECT if correct else Verdict.WRONG, *found, score=float(correct))


@functools.lru_cache(maxsize=4096)
def equal(answer: str, gold: str) -> bool:
    """Whether an extracted answer equals the gold answer. Cached: most rollouts of a prompt end in a few answers.

    Raises:
        Exhausted: out of memory or stack.
    """
    numbers = plain_number(answer), plain_number(gold)
    if None not in numbers:
        return numbers[0] == numbers[1]
    if len(answer) > MAX_ANSWER_CHARS or is_excessive(answer):
        return bool(load_grader().grade_answer_mathd(answer, gold))
    answer, gold = _tidy(answer), _tidy(gold)
    both = f"{answer} {gold}"
    if not _INDEXED_ROOT.search(both) and load_grader().grade_answer(answer, gold):
        return True
    return not _NO_EXPRESSION.search(both) and math_verify_equal(answer, gold)


def is_excessive(text: str) -> bool:
    """Whether an expression is one that no answer is and that would take the whole time limit: 9^9^9, 99999999!, a
    thousand brackets. It is compared as text. What this does not see meets the limit."""
    if _EXCESSIVE.search(text) or sum(map(text.count, "([{")) > MAX_BRACKETS:
        return True
    towers = (map(int, match.groups()) for match in _TOWER.finditer(text))
    return any(low > 1 and high * math.log10(low) > math.log10(MAX_EXPONENT) for low, high in towers)


def _tidy(text: str) -> str:
    """Without marks that neither library knows: Markdown, thin spaces, the signs of degrees, currencies and roots."""
    for mark, plain in (("\\,", ""), ("°", "^\\circ"), ("€", ""), ("£", "")):
        text = text.replace(mark, plain)
    return re.sub(r"√(\w)", r"\\sqrt{\1}", text.strip("*`"))


def plain_number(text: str) -> Fraction | None:
    """The value of an integer or decimal number, with or without thousands separators; None for all else."""
    text = text.strip()
    if len(text) > MAX_ANSWER_CHARS or not _PLAIN_NUMBER.fullmatch(text):
        return None
    return Fraction(text.replace(",", "").removesuffix("."))
