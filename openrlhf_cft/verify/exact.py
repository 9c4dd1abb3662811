r"""Exact text: the marked answer of a response, or all of it, must equal the gold answer except for outer white space.

judge_exact(r"\boxed{Paris}", "Paris")      # Judgement(CORRECT, "Paris", "boxed", 1.0)
judge_exact("Paris", "paris").verdict       # WRONG
"""

from __future__ import annotations

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.verify.boxes import last_boxed
from openrlhf_cft.verify.extract import MAX_CHARS, last_hashes
from openrlhf_cft.verify.judgement import Judgement


def judge_exact(response: str, answer: str, prompt: str = "") -> Judgement:
    r"""Compare the last `\boxed{}` of a response, else what follows its last `####`, else all of it, with the answer.

    Args:
        response: text of a model; only its last `MAX_CHARS` characters are read.
        answer: the gold answer.
        prompt: not used.

    Returns:
        `CORRECT` or `WRONG`, or `UNPARSABLE` if the response is blank; the score is 1 or 0.
    """
    text = response[-MAX_CHARS:]
    for found_by, find in (("boxed", last_boxed), ("hashes", last_hashes), ("response", str.strip)):
        given = find(text)
        if given:
            correct = given == answer.strip()
            return Judgement(Verdict.CORRECT if correct else Verdict.WRONG, given, found_by, float(correct))
    return Judgement(Verdict.UNPARSABLE, score=0.0)
