r"""The boxes in a response, `\boxed{}` and similar: the last one, those joined to it, and what changes its meaning.

Takes linear time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_BOXES = 50  # boxes that are read as one answer
MAX_JOINT_CHARS = 60  # characters between two joined boxes

# A brace escaped by a backslash is text, so backslash pairs are consumed together.
_BRACE = re.compile(r"\\(?:boxed|fbox|framebox)\s{0,3}\{|\\.|[{}]", re.DOTALL)
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\b")
_JOINT = re.compile(
    r"(?:[\s$,;&]|\b(?:and|or)\b|\b[A-Za-z](?:_\{?\w\}?)?\s?=|"
    r"\\(?:quad|qquad|[,;:! ()\[\]\\]|text(?:bf|rm)?\s?\{\s{0,3}(?:and|or)\s{0,3}\}))*"
)
# Text beside a box that belongs to it: a factor, a power, a relation; "not" before it, "is wrong" after it.
_BEFORE_BOX = re.compile(
    r"(?:(?P<name>(?:\\?[A-Za-z]{1,20}|\d{1,20})?\s{0,2})"
    r"(?P<relation><|>|\\(?:n?eq?|[lg]eq?|not\s?=|not\s?\\in|notin)\b|[≠≤≥])\s{0,3}"
    r"|(?P<factor>(?<![\\A-Za-z])[\d.]{1,20}\s{0,2}|[-−]\s{0,2}|(?<!\\)\b[a-z])"
    r"|(?P<inside>\\d?frac\{[^{}]{1,40}\}\{|\\sqrt\{))[${(]{0,2}$"
)
_BEHIND_BOX = re.compile(
    r"\$?(?:(?P<part>\^(?:\{[^{}]{0,20}\}|\S)|!|\s?\\?%|\s?\\(?:pi|sqrt|cdot|times)\b[^\s$]{0,20}"
    r"|\s{1,3}(?:thousand|million|billion|trillion|hundred|dozen|percent|squared|cubed)\b)"
    r"|(?P<or>\s{1,3}(?:or|to)\s{1,3}\$?[-−\d\\])"
    r"|(?P<wrong>\$?\s{1,3}(?:is|are|was)\s{1,3}(?:not|wrong|incorrect|false)\b))"
)
_DENIED = re.compile(
    r"(?:\b(?:not|never|cannot)|n['’]t)(?:\s{1,3}(?:be|equal|simply|just)){0,2}\s{0,3}\$?$", re.IGNORECASE
)


@dataclass(frozen=True)
class _Box:
    """Offsets of a closed `\\boxed{…}` in a text."""

    start: int
    content: int
    end: int  # of the content; the closing brace is there


def _boxes(text: str) -> list[_Box]:
    """The closed boxes in the order in which they close, without empty ones (`{}` is a quoted instruction)."""
    first = _BOX.search(text)
    if first is None:
        return []
    start = first.start()
    boxes = []
    opened: list[tuple[int, int]] = []  # start of each open brace and of its content; start -1: not a box
    for match in _BRACE.finditer(text, start):
        token = match.group()
        if len(token) > 2:
            opened.append((match.start(), match.end()))
        elif token == "{":
            opened.append((-1, match.end()))
        elif token == "}" and opened:
            begin, content = opened.pop()
            if begin >= 0 and text[content : match.start()].strip():
                boxes.append(_Box(begin, content, match.start()))
    return boxes


def last_boxed(text: str) -> str | None:
    r"""The content of the `\boxed{}` that opens last."""
    box = max(_boxes(text), key=lambda box: box.content, default=None)
    return text[box.content : box.end].strip() if box else None


def last_boxes(text: str) -> str | None:
    r"""The content of the `\boxed{}` that opens last, and of those joined to it, as a list: `\boxed{1} and \boxed{2}`
    is `1, 2`. Text that changes a box is kept: `-\boxed{5}`, `x > \boxed{5}`, `\boxed{5} million`, "not \boxed{5}".
    """
    boxes = sorted(_boxes(text), key=lambda box: box.content)
    if not boxes:
        return None
    last = [boxes.pop()]
    while boxes and len(last) < MAX_BOXES and _joined(text, boxes[-1], last[-1]):
        last.append(boxes.pop())
    if len(last) == 1:
        return _in_context(text, last[0])
    last.reverse()
    contents = [text[box.content : box.end].strip() for box in last]
    if len(set(contents)) == 1:
        return contents[0]
    names = [re.search(r"\b([A-Za-z](?:_\{?\w\}?)?)\s?=\s?\$?$", text[max(0, b.start - 20) : b.start]) for b in last]
    if all(names):
        contents = [f"{name[1]} = {content}" for name, content in zip(names, contents, strict=True) if name]
    return ", ".join(contents)


def _in_context(text: str, box: _Box) -> str:
    """The content of a box, with the text beside it that belongs to it."""
    content = text[box.content : box.end].strip()
    before, behind = text[max(0, box.start - 80) : box.start], text[box.end + 1 : box.end + 81]
    line = before.rpartition("\n")[2]
    right = _BEHIND_BOX.match(behind)
    if _DENIED.search(line) or (right and right["wrong"]):
        return f"\\not {content}"
    left = _BEFORE_BOX.search(line)
    if right:
        content = (
            f"{{{content}}}{right['part']}" if right["part"] else f"{content}{right['or']}{behind[right.end() :]}"
        )
    if left and left["relation"]:
        return f"{left['name']}{left['relation']} {content}"
    if left and left["factor"]:
        return f"{left['factor']}({content})"
    return f"{left['inside']}{content}}}" if left else content


def _joined(text: str, first: _Box, second: _Box) -> bool:
    """Whether two boxes are one answer. On separate lines they need a word or comma in between, because the second
    may correct the first."""
    if not 0 <= second.start - first.end - 1 <= MAX_JOINT_CHARS:
        return False
    between = text[first.end + 1 : second.start]
    return bool(_JOINT.fullmatch(between)) and ("\n" not in between or bool(re.search(r"[,;&]|and|or", between)))
