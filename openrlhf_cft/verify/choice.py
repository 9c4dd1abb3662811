r"""Multiple choice: the letter that a response settles on, in the usual phrasings, boxed or not.

    judge_choice("Her sugar is low, so the answer is **(B)** glucose.", "B")   # Judgement(CORRECT, "B", "phrase", 1.0)

The gold answer is a letter, alone or as a response gives it (`B`, `(B)`, `B. glucose`, `\boxed{B}`). A response that
names two letters at once settles on neither. Every step takes time linear in the text.
"""

from __future__ import annotations

import re

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.verify.boxes import last_boxed, last_boxes
from openrlhf_cft.verify.chinese_choice import last_chinese
from openrlhf_cft.verify.extract import MAX_CHARS, last_hashes
from openrlhf_cft.verify.judgement import Judgement
from openrlhf_cft.verify.next_question import before_next_question
from openrlhf_cft.verify.reasoning import behind_reasoning

# Marks around a letter that have no meaning: emphasis, quotes, LaTeX's text commands and mathematics signs.
_MARKS = re.compile(r"\\(?:textbf|text|mathrm|mathbf|rm|bf)\b\s?|\\[()\[\]]|[*_`$\"“”{}]|<[^<>\n]{0,20}>")
# The name of an option: (B), [b], option B, a bare capital, or a bare small letter at the end of an answer.
_QUOTED = re.compile(r"['‘’]([A-Ja-j])['‘’]")
_OPTION = re.compile(
    r"(?:(?i:option|choice|answer|letter)\s{0,2}:?\s{0,2})?"
    r"(?:[(\[]\s?(?P<bracketed>[A-Ja-j])\s?[)\]]|(?P<capital>[A-J])(?![\w'’+]|[-–]\w)|(?P<small>[a-j])(?=\s*(?:[.):]|$)))",
    re.MULTILINE,
)
_BE = r"(?:is|would\s{1,3}be|must\s{1,3}be|should\s{1,3}be|has\s{1,3}to\s{1,3}be)"
_PHRASE = re.compile(
    r"(?:\b(?:(?:answer|ans|choice|option|diagnosis|treatment|selection)\.?"
    rf"(?:\s{{1,3}}(?:to|for|here|in|of|among)\b[^.\n:]{{0,80}}?)?\s{{0,3}}(?:\b{_BE}\b|[:=–—-]|(?<=ns\.))"
    r"|(?:choose|chose|pick|select|go\s{1,3}with|settle\s{1,3}on)"
    r"|(?:wait|actually|sorry|no)[,.]?\s{1,3}(?:it\s{1,3}is|it['’]s)\b)|(?:\bnot|n['’]t)\s{1,3}[(\[]?[A-J][)\]]?[,;.]?\s{1,3}"
    r"(?:but|it\s{1,3}is|it['’]s)\b)"
    r"[\s:,]{0,4}(?:(?:therefore|thus|clearly|most\s{1,3}likely|likely|probably|indeed|actually|really|obviously|letter|"
    r"of\s{1,3}course|in\s{1,3}fact)\b[\s,:]{0,4}){0,3}",
    re.IGNORECASE,
)
_SO = re.compile(
    r"\b(?:so|hence|thus|therefore)[,:]?\s{1,3}[(\[]?(?P<letter>[A-J])[)\]]?\s{0,9}[.!]?\s{0,9}\Z", re.IGNORECASE
)
_CORRECT = re.compile(
    r"(?:[(\[](?P<bracketed>[A-J])[)\]]|\b(?P<capital>[A-J]))(?![\w'’])[^.\n]{0,60}?\s(?:is|seems|appears)\s{1,3}(?:to\s{1,3}be\s{1,3})?"
    r"(?:the\s{1,3})?(?:(?:most|best|only|single)\s{1,3})?(?:correct|right|answer|best|appropriate|likely)\b"
)
# A bare letter before a word is part of a name ("B cells", "D dimer"), or the article or the pronoun, unless the
# sentence continues with one of these words.
_WORD = re.compile(
    r"[^\S\n]{1,9}(?!(?:because|since|as|for|which|is|due|given|from|with|and|or|but|that|based|according|here|not|while|"
    r"although|though|instead|rather|over|in|to|of|at|by|on|if|when|it|this|these|they|so|therefore)\b)[A-Za-z0-9]"
)
_ANOTHER = re.compile(
    r"\s{0,3}(?:[,;/|&+>–—-]|[,;]?\s{0,3}\b(?:and|or|but|to|vs|versus)\b|(?=[(\[]))\s{0,3}"
    r"(?:(?:maybe|perhaps|possibly|also|even|then|option)\s{1,3}){0,2}"
    r"[(\[]?[A-J][)\]]?\s*(?:$|[.,;|/&)\n]|or\b|and\b)"
)
_NOT = re.compile(
    r"(?:(?:\bnot|n['’]t|\bnever|\bcannot|\bhardly|\bneither|\bdoubt)\s{1,3}(?:[\w'’]{1,20}\s{1,3}){0,4}"
    r"|\b(?:wrong|incorrect|false|nobody|no\s{1,3}one)\s{1,3}(?:[\w'’]{1,20}\s{1,3}){0,6})$",
    re.IGNORECASE,
)
_WRONG = re.compile(r"[)\]]?\s{1,3}(?:is|are|was|would\s{1,3}be)\s{1,3}(?:not|wrong|incorrect|false)\b", re.IGNORECASE)
_LINE = re.compile(r"\s{0,99}(?:[(\[](?P<bracketed>[A-J])[)\]]|(?P<capital>[A-J])(?:\s{0,99}$|[.:)]))")
_BARE = re.compile(r"\s{0,9}[(\[]?[A-J][)\].]?\s{0,9}")
_CONTRAST = re.compile(r"(?:,|\band)\s{1,3}not\s{1,3}(?:(?:option|choice)\s{1,3})?$", re.IGNORECASE)  # E, not D
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
    choice = extract_choice(response)
    if choice is None:
        return Judgement(Verdict.UNPARSABLE, score=0.0)
    correct = choice[0] == gold_letter(answer)
    return Judgement(Verdict.CORRECT if correct else Verdict.WRONG, *choice, score=float(correct))


def gold_letter(answer: str) -> str | None:
    """The letter of a gold answer; None if it is not a letter."""
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
        A letter from A to J, and one of "boxed", "hashes", "phrase", "line", "option"; None if there is no letter.
    """
    text = before_next_question(behind_reasoning(text[-MAX_CHARS:]), last_boxes, last_hashes, _phrase)
    for found_by, mark in (("boxed", last_boxes), ("hashes", last_hashes)):
        marked = mark(text)
        if marked:  # the response did settle, but maybe not on a letter
            letter = _whole(marked)
            return (letter, found_by) if letter else None
    text = _QUOTED.sub(r"\1", _MARKS.sub("", text))
    for found_by, find in (("phrase", _phrase), ("line", _line), ("option", _only_option)):
        letter = find(text)
        if letter:
            return letter, found_by
    return None


def _whole(text: str) -> str | None:
    """The letter of a text that is only an answer: `B`, `(b)`, `B. glucose`, `option B`."""
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
    """The letter after the last "the answer is" or "I choose", or before the last "is correct"."""
    end, letter = -1, None
    for phrase in _PHRASE.finditer(text):
        match = _OPTION.match(text, phrase.end())
        if match and not _is_word(match, text) and _settles(text, phrase, match):
            end, letter = match.end(), _letter(match)
    for match in _CORRECT.finditer(text):
        is_word = _is_article(match, text)
        if match.end() > end and not is_word and not _denied(text, match):
            end, letter = match.end(), _letter(match)
    chinese = last_chinese(text)
    if chinese is not None and chinese[0] > end:
        end, letter = chinese
    so = _SO.search(text, max(0, len(text) - 40))
    return so["letter"] if so and so["letter"].isupper() and end < so.start("letter") else letter


def _settles(text: str, phrase: re.Match[str], option: re.Match[str]) -> bool:
    """Whether a phrase and the option after it are not denied, not a question, and not one of several options."""
    end = option.end()
    if text[end : end + 1] == "?" or _WRONG.match(text, end):
        return False
    return not _ANOTHER.match(text, end) and not _denied(text, phrase)


def _is_word(match: re.Match[str], text: str) -> bool:
    """Whether a bare letter is part of the name that follows it."""
    return bool(match["capital"] and _WORD.match(text, match.end()))


def _is_article(match: re.Match[str], text: str) -> bool:
    """Whether the letter before "is correct" is the article or the pronoun."""
    return bool(match["capital"] in ("A", "I") and _WORD.match(text, match.end("capital")))


def _denied(text: str, match: re.Match[str]) -> bool:
    """Whether a sentence denies what the match says: "I would not choose", "I don't think the answer is"."""
    before = text[max(0, match.start() - 80) : match.start()]
    return bool(_NOT.search(re.split(r"[.!?\n,;]", before)[-1]))


def _line(text: str) -> str | None:
    """The letter of the last line, if that is an answer such as `B` or `B. glucose`; else of such a first line."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) == 1 and (letter := _whole(text)):
        return letter
    if len({line.strip() for line in lines if _BARE.fullmatch(line)}) > 1:
        return None  # a list of the options
    for place in (-1, 0):
        match = _LINE.match(lines[place]) if lines else None
        if match is None or _ANOTHER.match(lines[place], match.end(match.lastgroup or 0)):
            continue
        if place == -1 and len(lines) > 1 and not _BARE.fullmatch(lines[-1]) and _another_option(lines[-2], match):
            return None
        return _letter(match)
    return None


def _another_option(line: str, match: re.Match[str]) -> bool:
    """Whether this line is another option: the lines are the question's list."""
    other = _LINE.match(line)
    return bool(other and _letter(other) != _letter(match))


def _only_option(text: str) -> str | None:
    """The one option that the text names, as `option B` or `(B)`; None if it names several, or denies the one."""
    mentions = [match for match in _NAMED.finditer(text) if not _contrasted(text, match.start())]
    named = {match["letter"] or match["bracketed"] for match in mentions}
    if len(named) != 1 or any(_denied(text, match) or _WRONG.match(text, match.end()) for match in mentions):
        return None
    return named.pop()


def _contrasted(text: str, start: int) -> bool:
    """Whether the option at `start` is only named as another than the answer: `choice (E), not (D)`."""
    return bool(_CONTRAST.search(text[max(0, start - 20) : start]))
