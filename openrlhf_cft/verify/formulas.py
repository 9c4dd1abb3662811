r"""The formulas in a sentence: `so it is 3.0 x 10^8 m` has one, with prose around it.

    [formula.text for formula in formulas("She has 3 apples and $\frac12$ pear")]       # ["3", "$\frac12$"]

Takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Formula:
    """Mathematics without prose in between, and its position."""

    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def has_value(self) -> bool:
        """Whether it has a number, or is more than a letter."""
        return any(c.isdigit() for c in self.text) or "\\" in self.text or len(self.text.strip("$")) > 3


_ORNAMENT = re.compile("[\u2713\u2714\u2705\U0001f300-\U0001faff]")  # check marks and emoji
_CHUNK = re.compile(r"\S+")
_PROSE = re.compile(
    r"e\.g\.|i\.e\.|[(\"“'‘*_`]{0,6}"
    r"(?:[A-Za-z][a-zA-Z'’&-]{1,60}(?:/[A-Za-z]{1,30})?|[aAI]|[A-Za-z]/[A-Za-z]{1,30}|&)"
    r"[)\"”'’*_`.,;:!?]{0,6}"
)
_FORMULA = frozenset("sqrt pi sin cos tan log ln exp infinity".split())


def formulas(text: str) -> Iterator[Formula]:
    """The formulas in a sentence, in order. Text in braces or between dollar signs always belongs to one formula."""
    begin = end = -1
    depth, brackets, dollars = 0, 0, False
    paired = len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    for match in _CHUNK.finditer(text):
        chunk = match.group()
        inside = depth > 0 or dollars
        word = _PROSE.fullmatch(chunk) and chunk.strip("(),;:.!?").lower() not in _FORMULA
        if not inside and word:
            if begin >= 0:
                yield _trim(text, begin, end)
            begin = -1
            continue
        if begin < 0:
            begin, brackets = match.start(), 0
        end = match.end()
        depth = max(0, depth + chunk.count("{") - chunk.count("}"))
        if paired:
            dollars ^= len(re.findall(r"(?<!\\)\$", chunk)) % 2 == 1
        brackets += sum(map(chunk.count, "([")) - sum(map(chunk.count, ")]"))
        if chunk[-1] in ",;:" and depth == 0 and not dollars and brackets <= 0:
            yield _trim(text, begin, end)
            begin = -1
    if begin >= 0:
        yield _trim(text, begin, end)


def _trim(text: str, begin: int, end: int) -> Formula:
    """The formula without the punctuation around it."""
    run = text[begin:end]
    stripped = run.rstrip('.,;:!?*_`"”')
    lead = len(stripped) - len(stripped.lstrip('*_`"“,;'))
    return Formula(stripped[lead:], begin + lead)


def tidy_formula(run: str) -> str:
    """A formula as an answer: without dollar signs, and without brackets around a number that explains a word."""
    run = tidy(run).replace("−", "-").replace("\\%", "%")
    run = re.sub(r"(?<!\\)\$", "", run) if run.count("$") else run
    run = run.removeprefix("\\$").strip()
    run = run[1:].strip() if run.startswith("%") else run
    return run[1:-1] if re.fullmatch(r"\(\d+(?:\.\d+)?\)", run) else run


def tidy(answer: str) -> str:
    r"""Remove the marks around an answer: Markdown emphasis, `$…$`, `\(…\)` and the dot that ends the sentence."""
    answer = _ORNAMENT.sub("", answer).strip().strip("*`_").strip().removesuffix(".").strip("*`_ ")
    if len(answer) > 2 and answer[0] in "'‘\"“" and answer[-1] in "'’\"”":
        answer = answer[1:-1].strip()
    for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if answer.startswith(left) and answer.endswith(right) and answer.count(left) == (1 if left != right else 2):
            answer = answer[len(left) : -len(right)].strip().removesuffix(".")
    return answer.removeprefix("$") if answer.count("$") == 1 else answer
