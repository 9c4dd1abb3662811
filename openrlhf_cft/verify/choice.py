r"""Multiple choice: the letter that a response settles on, in the usual phrasings, boxed or not.

    judge_choice("Her sugar is low, so the answer is **(B)** glucose.", "B")   # Judgement(CORRECT, "B", "phrase", 1.0)

The gold answer is a letter, alone or as a response gives it (`B`, `(B)`, `B. glucose`, `\boxed{B}`). A response that
names two letters at once settles on neither. Every step takes time linear in the text.
"""

from __future__ import annotations

import re

from openrlhf_cft.records import Verdict
from openrlhf_cft.verify.extract import MAX_CHARS, last_boxed, last_hashes
from openrlhf_cft.verify.judgement import Judgement

# What stands around a letter without a meaning: emphasis, quotes, LaTeX's text commands and mathematics signs.
_MARKS = re.compile(r"\\(?:textbf|text|mathrm|mathbf|rm|bf)\b\s?|\\[()\[\]]|[*_`$\"“”{}]|<[^<>\n]{0,20}>")
# An option as it is named: (B), [b], option B, a bare capital, or a bare small letter where an answer ends with it.
_OPTION = re.compile(
    r"(?:(?i:option|choice|answer)\s{0,2}:?\s{0,2})?"
    r"(?:[(\[]\s?(?P<bracketed>[A-Ja-j])\s?[)\]]|(?P<capital>[A-J])(?![\w'’])|(?P<small>[a-j])(?=\s*(?:[.):]|$)))",
    re.MULTILINE,
)
_PHRASE = re.compile(
    r"\b(?:(?:answer|choice|option|diagnosis|treatment|selection)"
    r"(?:\s{1,3}(?:to|for|here|in|of|among)\b[^.\n:]{0,80}?)?\s{0,3}(?:\b(?:is|would\s{1,3}be|must\s{1,3}be|should\s{1,3}be)\b|[:=])"
    r"|(?:choose|chose|pick|select|go\s{1,3}with|settle\s{1,3}on))"
    r"[\s:]{0,4}(?:(?:therefore|thus|clearly|most\s{1,3}likely|probably|indeed)\b[\s,:]{0,4})?",
    re.IGNORECASE,
)
_CORRECT = re.compile(
    r"(?:[(\[](?P<bracketed>[A-J])[)\]]|\b(?P<capital>[A-J]))(?![\w'’])[^.\n]{0,60}?\s(?:is|seems|appears)\s{1,3}(?:to\s{1,3}be\s{1,3})?"
    r"(?:the\s{1,3})?(?:(?:most|best|only|single)\s{1,3})?(?:correct|right|answer|best|appropriate|likely)\b"
)
# "A" and "I" are words too; before one of these they are options.
_WORD = re.compile(r"\s+(?!(?:because|since|as|for|which|is|due|given|from|with|and|or)\b)[A-Za-z]")
_ANOTHER = re.compile(r"\s{0,3}(?:[,/&]|,?\s{0,3}\b(?:and|or)\b)\s{0,3}[(\[]?[A-J][)\]]?\s*(?:$|[.,;)\n]|or\b|and\b)")
_NAMED = re.compile(r"\b(?:[Oo]ption|[Cc]hoice)\s{0,3}\(?(?P<letter>[A-J])\b|\((?P<bracketed>[A-J])\)")


def judge_choice(response: str, answer: str, prompt: str = "") -> Judgement:
    """Compare the letter that a response settles on with the gold letter.

    Args:
        response: text of a model, of any length and content.
        answer: the gold letter.
        prompt: not used.

    Returns:
        `CORRECT`, `WRONG`, or `UNPARSABLE` where the response settles on no letter; the score is 1 or 0.
    """
    found = extract_choice(response)
    if found is None:
        return Judgement(Verdict.UNPARSABLE, score=0.0)
    correct = found[0] == gold_letter(answer)
    return Judgement(Verdict.CORRECT if correct else Verdict.WRONG, *found, score=float(correct))


def gold_letter(answer: str) -> str | None:
    """The letter of a gold answer; None where it is none."""
    boxed = last_boxed(answer)
    return _whole(answer if boxed is None else boxed)


def gold_choice(answer: str) -> str:
    """A response that gives the gold answer."""
    return f"\\boxed{{{gold_letter(answer) or ''}}}"


def extract_choice(text: str) -> tuple[str, str] | None:
    """The letter that a response settles on, and how it was found.

    Args:
        text: a response; only its last `MAX_CHARS` characters are read.

    Returns:
        A letter from A to J, and one of "boxed", "hashes", "phrase", "line", "option"; None where there is none.
    """
    text = text[-MAX_CHARS:]
    for found_by, mark in (("boxed", last_boxed), ("hashes", last_hashes)):
        marked = mark(text)
        if marked:  # it did settle; on no letter, perhaps
            letter = _whole(marked)
            return (letter, found_by) if letter else None
    text = _MARKS.sub("", text)
    for found_by, find in (("phrase", _phrase), ("line", _line), ("option", _only_option)):
        letter = find(text)
        if letter:
            return letter, found_by
    return None


def _whole(text: str) -> str | None:
    """The letter of a text that is nothing but an answer: `B`, `(b)`, `B. glucose`, `option B`."""
    text = _MARKS.sub("", text).strip()
    match = _OPTION.match(text)
    if not match or _ANOTHER.match(text, match.end()):
        return None
    if match["bracketed"] or re.match(r"\s*(?:$|[.:)\-–—,])", text[match.end() :]):
        return _letter(match)
    return None


def _letter(match: re.Match[str]) -> str:
    return str(match[match.lastgroup or 0]).upper()


def _phrase(text: str) -> str | None:
    """The letter behind the last "the answer is" or "I choose", or before the last "is correct"."""
    end, letter = -1, None
    for phrase in _PHRASE.finditer(text):
        match = _OPTION.match(text, phrase.end())
        if match and not _ANOTHER.match(text, match.end()) and not _is_word(match, text):
            end, letter = match.end(), _letter(match)
    for match in _CORRECT.finditer(text):
        if match.end() > end and not _is_word(match, text, match.end(match.lastgroup or 0)):
            end, letter = match.end(), _letter(match)
    return letter


def _is_word(match: re.Match[str], text: str, end: int | None = None) -> bool:
    """Whether a bare letter is the article or the pronoun."""
    bare = match.groupdict().get("capital")
    return bool(bare in ("A", "I") and _WORD.match(text, match.end() if end is None else end))


def _line(text: str) -> str | None:
    """The letter of a last line that is an answer, such as `B` or `B. glucose`; else of such a first line."""
    lines = text.strip().splitlines()
    if len(lines) == 1 and (letter := _whole(text)):
        return letter
    for line in lines[-1:] + lines[:1]:
        match = re.match(r"\s*(?:[(\[](?P<bracketed>[A-J])[)\]]|(?P<capital>[A-J])(?:\s*$|[.:)]))", line)
        if match and not _ANOTHER.match(line, match.end(match.lastgroup or 0)):
            return _letter(match)
    return None


def _only_option(text: str) -> str | None:
    """The one option that the text names, as `option B` or `(B)`; None where it names several."""
    named = {match["letter"] or match["bracketed"] for match in _NAMED.finditer(text)}
    return named.pop() if len(named) == 1 else None
