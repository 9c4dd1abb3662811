r"""The gold answer of the math verifier, as data sets give it: an answer, a whole solution, or JSON with a tolerance.

    read_gold("... so it is 72.\n#### 72").answer                      # "72"
    read_gold('{"answer": "9.81", "relative": 0.01}').tolerance         # Tolerance(relative=0.01, absolute=0.0)

`relative` is a share of the answer, `absolute` is a difference. A number is right within the larger of both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from openrlhf_cft.verify.extract import extract_answer
from openrlhf_cft.verify.value import EXACT, Tolerance

MARKS = ("box", "####")  # every box contains the first, every solution of GSM8K the second


@dataclass(frozen=True)
class Gold:
    """An answer, and how far a number may be from it."""

    answer: str
    tolerance: Tolerance = EXACT


def read_gold(text: str) -> Gold:
    """The gold answer: the marked part of a solution, boxed or after `####`; without marks the whole text."""
    given = _json(text)
    if given is not None:
        tolerance = Tolerance(float(given.get("relative", 0.0)), float(given.get("absolute", 0.0)))
        return Gold(_marked(str(given["answer"])), tolerance)
    return Gold(_marked(text))


def write_gold(answer: str, relative: float = 0.0, absolute: float = 0.0) -> str:
    """A gold answer as text for `read_gold`; plain text if it has no tolerance."""
    tolerance = {name: value for name, value in (("relative", relative), ("absolute", absolute)) if value}
    return json.dumps({"answer": answer, **tolerance}, ensure_ascii=False) if tolerance else answer


def gold_response(text: str) -> str:
    """A response that gives the gold answer. A row is useful only if the verifier calls this response correct."""
    return f"\\boxed{{{read_gold(text).answer}}}"


def _marked(answer: str) -> str:
    if not any(mark in answer for mark in MARKS):  # extracting an answer would double the time of a verdict
        return answer
    extracted = extract_answer(answer)
    return extracted[0] if extracted and extracted[1] in ("boxed", "hashes") else answer


def _json(text: str) -> dict[str, float | str] | None:
    """The mapping of a JSON object; None for any other text, including a set such as {1, 2}."""
    if not text.lstrip().startswith('{"'):
        return None
    try:
        given = json.loads(text)
        usable = isinstance(given, dict) and "answer" in given
        return given if usable and all(float(given.get(name, 0)) >= 0 for name in ("relative", "absolute")) else None
    except (ValueError, TypeError):
        return None
