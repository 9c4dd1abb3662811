r"""Mathematical answers: equal if they are the same number, expression, list, interval, equation, matrix or words.

    judge_math(r"so it is \boxed{\frac{1}{2}}", "1/2")   # Judgement(CORRECT, "\frac{1}{2}", "boxed", 1.0)

`extract` finds the answer, `notation` turns it into tokens, `reading` finds its form, and `comparison` decides whether
it is the gold answer. Nothing that a model wrote is evaluated as code.
"""

from __future__ import annotations

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.verify.equality import equal
from openrlhf_cft.verify.extract import extract_answer
from openrlhf_cft.verify.gold import read_gold
from openrlhf_cft.verify.judgement import Judgement


def judge_math(response: str, answer: str, prompt: str = "") -> Judgement:
    """Extract the answer of a response and compare it with the gold answer.

    Args:
        response: text of a model, of any length and content.
        answer: the gold answer, LaTeX or plain. Of a whole solution only the marked part counts (GSM8K's `#### x`, or
            boxed). JSON adds a tolerance, `{"answer": "9.81", "relative": 0.01}`; see `verify.gold`.
        prompt: not used.

    Returns:
        `CORRECT`, `WRONG` or `UNPARSABLE`, with the extracted answer; the score is 1 or 0.
    """
    extracted = extract_answer(response)
    if extracted is None:
        return Judgement(Verdict.UNPARSABLE, score=0.0)
    gold = read_gold(answer)
    correct = equal(extracted[0], gold.answer, gold.tolerance)
    return Judgement(Verdict.CORRECT if correct else Verdict.WRONG, *extracted, score=float(correct))
