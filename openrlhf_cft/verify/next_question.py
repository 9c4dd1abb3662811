r"""Cut a response before another question: a base model that is not stopped continues with a question of its own.

before_next_question("#### 5\n\nQuestion: What is 3+4?\n#### 7", last_hashes)      # "#### 5"
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

MAX_WORDS = 3  # words of an answer that ends a response; "the answer is not at all obvious" does not end one
MAX_QUESTIONS = 5  # questions to look at, from the first one

# At the beginning of a line: `Question:`, `### Problem 3:`, `Q: `, `**Exercise 2.**`, `Human: `.
_NEXT = re.compile(
    r"^[#*\s]{0,8}(?:question|problem|exercise|q|human|user|instruction|input)\s{0,2}\d{0,3}\s{0,2}"
    r"(?:[:：]|\*\*|\.\s)",
    re.IGNORECASE | re.MULTILINE,
)


def before_next_question(text: str, *finders: Callable[[str], str | None]) -> str:
    """The text before the first line that asks another question, if an answer precedes that line; else all of it.

    A question that is repeated before it is answered, or "Problem 1:" above the solution, does not end a response.

    Args:
        text: a response; the time is linear in its length.
        finders: each returns the answer that a text gives, or None.
    """
    for question in itertools.islice(_NEXT.finditer(text), MAX_QUESTIONS):
        before = text[: question.start()]
        if any(0 < len((find(before) or "").split()) <= MAX_WORDS for find in finders):
            return before
    return text
