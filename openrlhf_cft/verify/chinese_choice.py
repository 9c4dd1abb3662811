"""Multiple choice in Chinese: the letter in `故选C`, `故选：C`, `答案是C`, `所以选 C`."""

from __future__ import annotations

import re

_SPACE = r"\s{0,3}"
_CHOICE = re.compile(
    rf"(?P<so>故|所以|因此|因而|综上[,，]?)?(?:本题|应该?|正确)?{_SPACE}"
    rf"(?:选择?|(?:正确)?(?:答案|选项){_SPACE}(?:应该?)?(?:选择?|是|为|(?=[:：]))){_SPACE}(?:为|是)?{_SPACE}[:：]?{_SPACE}"
    rf"[(（]?{_SPACE}(?P<letter>[A-JＡ-Ｊ])(?![A-Za-zＡ-Ｚ0-9]){_SPACE}[)）]?"
)
# Before a choice in the same clause: it is denied, only supposed, or somebody else's.
_DENIED = re.compile(
    r"[不别勿没未非][^,，。]{0,2}$|错误?的?$|(?:或者?|或是|还是|和|与)$"
    r"|若|如果|假如|假设|要是|倘|是否|能否|为何|为什么|有人|同学|学生"
)
_SUPPOSED = re.compile(rf"{_SPACE}(?:吗|么|呢|[?？]|错|不|的|(?:选项|项)?{_SPACE}(?:是|为)?{_SPACE}(?:错|不))")
_ANOTHER = re.compile(
    rf"{_SPACE}(?:(?:或者?|和|与|及|以及|还是|、|/|&|\bor\b|\band\b){_SPACE}|[,，]{_SPACE}(?=.[^选项错不]|.$)|(?=[(（]))"
    rf"[(（]?(?:选择?)?{_SPACE}[A-JＡ-Ｊ](?![A-Za-z0-9])"
)
_CLAUSE = re.compile(r"[,，。.;；:：!！?？\n]")
_CLAUSE_CHARS = 30


def last_chinese(text: str) -> tuple[int, str | None] | None:
    """The end and the letter of the last choice in Chinese words; None for the letter if that names two at once."""
    found: tuple[int, str | None] | None = None
    for match in _CHOICE.finditer(text):
        clause = _CLAUSE.split(text[max(0, match.start() - _CLAUSE_CHARS) : match.start()])[-1]
        if (not match["so"] and _DENIED.search(clause)) or _SUPPOSED.match(text, match.end()):
            continue
        letter = match["letter"]
        ascii_letter = letter if letter.isascii() else chr(ord(letter) - 0xFEE0)
        found = match.end(), None if _ANOTHER.match(text, match.end()) else ascii_letter
    return found
