r"""The answer in a response: the last `\boxed{}`, else `#### x`, else "the answer is x", else the last number.

Every step takes time linear in the text, for any text: a response is a model's output and may be adversarial.
The regular expressions have no nested unbounded repetition, and only the end of a very long text is read.
"""

from __future__ import annotations

import re
from collections import deque

from openrlhf_cft.verify.boxes import last_boxes
from openrlhf_cft.verify.formulas import Formula, formulas, tidy, tidy_formula
from openrlhf_cft.verify.next_question import before_next_question
from openrlhf_cft.verify.notation import Token, tokens
from openrlhf_cft.verify.number_words import NUMBER_WORDS, number_in_words
from openrlhf_cft.verify.reasoning import behind_reasoning
from openrlhf_cft.verify.units import MULTIPLES, OPERATIONS, is_measure, read_unit

MAX_CHARS = 4_000_000  # characters read from the end of a response; more than the longest contexts of today hold
MAX_SENTENCE_CHARS = 1_000  # of the sentence with the last number, and of the text after "the answer is"
NEAR = 6  # words before the last number that may deny it
MAX_PHRASES = 20  # phrases to look at, from the last one backwards, while they are denied

_PHRASE = re.compile(
    r"\banswers?(?:\s{1,3}(?:is|are)\b|\s{0,3}\*{0,2}[:=])(?:\s{1,3}(?:then|thus|therefore))?[\s:*]{0,8}",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")
_NO_END = re.compile(
    r"(?:^|[\s(])(?:mrs?|ms|dr|prof|st|mt|ft|jr|sr|sen|rep|gov|gen|capt|lt|sgt|rev|approx|ca|i\.e|e\.g|vs|no|fig|"
    r"jan|feb|mar|apr|aug|sept?|oct|nov|dec)$",
    re.IGNORECASE,
)
_HALF_DAY = re.compile(r"\b[ap]\.m$", re.IGNORECASE)  # ends a sentence if a capital follows
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,40}>|<<[^<>\n]{0,200}>>")  # also GSM8K's <<48/2=24>>
_HEDGE = re.compile(r"(?:(?:about|around|approximately|approx\.?|roughly|exactly|only|just|simply)\s{1,3})+", re.I)
_NEGATION = re.compile(r"\b(?:not|never|cannot|neither|no)\b|n['’]t\b", re.IGNORECASE)
_CLAUSE = re.compile(r"[,;:]\s|\b(?:so|but|and|thus|therefore|hence|then)\b", re.IGNORECASE)
_IS = re.compile(r"\b(?:is|are|was|were|equals)\b", re.IGNORECASE)
_COPULA = re.compile(r"\b(?:is|are|was|were|equals|be)\s", re.IGNORECASE)
_WORD = re.compile(r"[(\"“']?[A-Za-z][A-Za-z'’./-]{0,60}[)\"”'!?.,;:]{0,3}")
# Text after one of these words is about the answer, and not part of it.
_ASIDE = frozenset(
    "because since as so which who that after before by due from for given with on at of in per each every assuming "
    "thanks based sharp exactly total altogether".split()
)
_REASONS = frozenset("because since as so which who that given assuming".split())
_COMPARED = frozenset("more fewer less greater".split())  # 7 more marbles than Jerry
# Directly before a number, these words change its value, or make it no answer.
_CHANGED = re.compile(
    r"\b(?:(?:more|less|fewer|greater|higher|lower|larger|smaller|other|rather)\s{1,3}than|at\s{1,3}(?:least|most)"
    r"|(?:half|third|quarter|square|cube|root|reciprocal|log|logarithm|multiple|factor|divisor|power|negative)\s{1,3}of"
    r"|(?:twice|double|triple|thrice|under|over|below|above|exceeds|unlike|except|minus|negative|mod|modulo|times|between)"
    r"|divisible\s{1,3}by|different\s{1,3}from|anything\s{1,3}but|(?:could|might|may)\s{1,3}be|maybe|perhaps|or"
    r"|(?<!adds\s)(?<!add\s)(?<!sums\s)(?<!sum\s)(?<!adding\s)(?<!comes\s)up\s{1,3}to)(?:\s{1,3}(?:the|a))?\s{1,3}\$?$",
    re.IGNORECASE,
)
_PREPOSITION = re.compile(
    r"\b(?:for|of|in|to\s{1,3}[a-z]{2,12}|after|with|by|on|at|from|per|than|every|until|before)\s{1,3}$", re.I
)
_SIGN_IN_WORDS = re.compile(r"(?:^|(?<=\s))(?:minus|negative)\s{1,3}(?=[\d$\\])", re.IGNORECASE)
_FORMULA_THERE = re.compile(
    r"\\\[\s{0,9}[^\n]{1,400}\s{0,9}\\\]|\\\(\s{0,9}[^\n]{1,400}\s{0,9}\\\)|\$\$\s{0,9}[^\n]{1,400}\s{0,9}\$\$"
)
_TAKEN_BACK = re.compile(
    r"\s{0,3}\?|\s{1,3}(?:(?:is|are|was)\s{1,3}"
    r"(?:not\s{1,3}(?:correct|right|the|possible|valid|it|an?)\b|wrong|incorrect|impossible|false)"
    r"|does\s?n[o'’]t|(?:or\s)?not\b|mod\b)",
    re.IGNORECASE,
)
_REMARK = re.compile(r"\s\([^()]{0,200}[A-Za-z=+*/][^()]{0,200}\)[.\s]{0,9}$")
_BETWEEN = re.compile(r"\bbetween\s{1,3}\S{1,20}\s{1,3}and\s{1,3}\$?$", re.IGNORECASE)
_UNBELIEVED = re.compile(
    r"\b(?:wrong|incorrect|false|doubt|nobody)\b|(?:\bnot|n['’]t)\s{1,3}(?:think|believe|say|sure)\b", re.IGNORECASE
)
_ALONE = re.compile(r"\$?\\?\$?[-−+]?[\d.,]{1,40}\\?%?\$?")  # a number and nothing else
_WITH_UNIT = re.compile(r"([-−+]?[\d.,]{1,40})(?:st|nd|rd|th|[ap]m|[gmL]|(?P<unit>[A-Za-z]{2,4}))")
_OF_SEVERAL = re.compile(r"\b(?:sum|product|difference|quotient|ratio|average|mean)\s{1,3}of\b", re.IGNORECASE)
_DOUBT = re.compile(r"\b(?:wrong|incorrect|false|doubt|not|never|nobody|cannot)\b|n['’]t\b", re.IGNORECASE)
_CLAUSE_END = re.compile(r"[.!?;,:\n]")
_MATHEMATICAL = frozenset("squared cubed percent factorial".split()) | MULTIPLES.keys() - {"dozen"}


def extract_answer(text: str) -> tuple[str, str] | None:
    """The answer that a response gives, and how it was found.

    Args:
        text: a response; only its last `MAX_CHARS` characters are read.

    Returns:
        The answer, never empty, and one of "boxed", "hashes", "phrase", "last_number"; None if there is no answer.
    """
    text = before_next_question(behind_reasoning(text[-MAX_CHARS:]), last_boxes, last_hashes, _phrase)
    for found_by, find in _FINDERS:
        answer = find(text)
        if answer:
            return answer, found_by
    return None


def last_hashes(text: str) -> str | None:
    """The text after the last `####` on its line, as in GSM8K's solutions."""
    start = text.rfind("####")
    return tidy(text[start + 4 :].partition("\n")[0]) if start >= 0 else None


def _phrase(text: str) -> str | None:
    """The text after the last "the answer is" or "answer:" that is not denied, up to the end of the sentence."""
    for match in reversed(deque(_PHRASE.finditer(text), maxlen=MAX_PHRASES)):
        before = text[max(0, match.start() - 60) : match.start()]
        if not _DOUBT.search(_CLAUSE_END.split(before)[-1]):
            return _core(tidy(_TAG.sub("", _sentence(text, match.end()))))
    return None


def _sentence(text: str, start: int) -> str:
    """The text from `start` to the end of the sentence or line. A formula may be on lines of its own."""
    formula = _FORMULA_THERE.match(text, start)
    for match in _SENTENCE_END.finditer(text, formula.end() if formula else start):
        before = text[max(start, match.start() - 8) : match.start()]
        if match.group() == "." and _NO_END.search(before):
            continue
        if (
            match.group() == "."
            and _HALF_DAY.search(before)
            and not text[match.end() : match.end() + 3].strip().isupper()
        ):
            continue
        return text[start : match.start()].replace("\n", " ")
    return text[start:].replace("\n", " ")


def _core(text: str) -> str:
    """The answer in a sentence: its only number or expression, with its unit if that matters; else the whole sentence.

    `5 apples, out of 7` is 5, `She makes $18 every day` is 18. `5 or 7`, `12 less than 20` and `Mr. Boone` stay.
    """
    if len(text) > MAX_SENTENCE_CHARS:
        return text
    text = text[match.end() :] if (match := _HEDGE.match(text)) else text
    text = _SIGN_IN_WORDS.sub("-", text)
    runs = [run for run in formulas(text) if run.has_value]
    if not runs:
        return _number_words(text)
    copulas = list(_COPULA.finditer(text))
    if runs[0].start > 0 and copulas and runs[-1].start >= copulas[-1].end() and not _NEGATION.search(text):
        return _core(text[copulas[-1].end() :].lstrip())
    if runs[0].start > 0:
        if _NEGATION.search(text) or _OF_SEVERAL.search(text):
            return text
        runs = [run for run in runs if not _PREPOSITION.search(text[: run.start])] or runs
    if len(runs) > 1 and runs[0].start > 0 and not _PREPOSITION.search(text[: runs[1].start]):
        return text
    run = runs[0]
    tail = _plain_tail(text[run.end :])
    return text if tail is None or _CHANGED.search(text[: run.start]) else tidy_formula(run.text) + tail


def _number_words(text: str) -> str:
    """The number that a sentence has in words, in digits; the sentence itself if it has none, or several."""
    matches = list(re.finditer(r"[A-Za-z]+", text))
    words = [match.group().lower() for match in matches]
    places = [place for place, word in enumerate(words) if word in NUMBER_WORDS]
    if not places or _NEGATION.search(text):
        return text
    first, last = places[0], places[-1]
    value = number_in_words(words[first : last + 1])
    if value is None and words[first - 1 : first] == ["a"]:
        value = number_in_words(words[first - 1 : last + 1])
    behind = [word for word in words[last + 1 :] if word not in _ASIDE]
    if value is None or _CHANGED.search(text[: matches[first].start()]) or set(behind) & OPERATIONS:
        return text
    return str(value)


def _plain_tail(text: str) -> str | None:
    """The unit in the text after a number, as far as it matters. None if the text means more than a number of things:
    `5 times 3`, `12 or more`, `15 dollars and 50 cents`."""
    words: list[str] = []
    chunks = text.split()
    for place, chunk in enumerate(chunks):
        rest = [part for part in (chunk.lstrip(",;:"), *chunks[place + 1 :]) if part]
        word = chunk.strip("(),;:.!?\"'*$").lower()
        following = chunks[place + 1].strip("(),;:.!?\"'*$").lower() if place + 1 < len(chunks) else ""
        if chunk[0] in ",;:":
            return None if rest and _continues(rest[0]) else _unit(words)
        if word.startswith("mod") or chunk == "&":
            return None
        if chunk[0] == "(" or word in ("e.g", "i.e") or not any(c.isalnum() for c in chunk):
            return _unit(words)
        if (
            word == "to"
            and "power" not in rest
            and following
            and not following[0].isdigit()
            and following not in NUMBER_WORDS
        ):
            return _unit(words)
        if (word, following) in (("and", "not"), ("or", "so")):
            return _unit(words)
        if word in _COMPARED:
            if following == "than" and not words:
                return None
            continue
        if word in _ASIDE or (word == "than" and words):
            others = [part for part in rest[1:] if part.lstrip("$(")[:1].isdigit()]
            listed = others and ("and" in rest or word in ("with", "of")) and word not in _REASONS
            return None if listed else _unit(words)
        if not _WORD.fullmatch(chunk) or (word in OPERATIONS and word not in MULTIPLES):
            return None
        words.append(chunk.strip("(),;:!?\"'*"))
        if chunk[-1] in ",;:":
            return None if following and _continues(chunks[place + 1]) else _unit(words)
    return _unit(words)


def _continues(chunk: str) -> bool:
    """Whether a list continues with this chunk."""
    return chunk.lower() in ("or", "and") or chunk[:1].isdigit() or chunk[:1] in "$\\-"


def _unit(words: list[str]) -> str | None:
    """The words to keep after a number: units of measurement and `million`, but no counted things. None: no unit."""
    unit = read_unit([token for token in tokens(" ".join(words)) if token.text.lower() not in MULTIPLES])
    if unit is None:
        return None
    keep = unit.measures or (words and words[0].lower() in MULTIPLES)
    return " " + " ".join(words) if keep else ""


def _last_number(text: str) -> str | None:
    """The last number, or expression with one: signed, with thousands separators, decimals, a fraction, a root."""
    end = max(text.rfind(digit) for digit in "0123456789")
    if end < 0:
        dollars = re.findall(r"\$([^$\n]{3,200})\$", text[-MAX_SENTENCE_CHARS:])
        return dollars[-1].strip() if dollars else None
    text = text[max(0, end - MAX_SENTENCE_CHARS) : end + MAX_SENTENCE_CHARS]
    end = min(end, MAX_SENTENCE_CHARS)
    start = max((match.end() for match in _SENTENCE_END.finditer(text) if match.end() <= end), default=0)
    line = _TAG.sub(" ", text[start:].partition("\n")[0])
    if (remark := _REMARK.search(line)) and any(c.isdigit() for c in line[: remark.start()]):
        line = line[: remark.start()]
    runs = [run for run in formulas(line) if run.has_value and any(c.isdigit() for c in run.text)]
    if not runs:
        return None
    run = runs[-1]
    before, behind = line[: run.start], line[run.end :]
    if ("=" not in run.text and _denied(before)) or _TAKEN_BACK.match(behind):
        return None
    if len(runs) > 1 and all(_ALONE.fullmatch(other.text) for other in runs[-2:]):
        if line[runs[-2].end : run.start].strip().lower() in ("or", "to"):
            return tidy(line[runs[-2].start : run.end])
    if "=" not in run.text and _CHANGED.search(before):
        return None
    listed = _listed(line, runs)
    if listed:
        return listed
    following = behind.split(maxsplit=1)
    word = following[0].strip(".,;:!?)").lower() if following else ""
    answer = tidy_formula(_conclusion(run.text))
    with_unit = _WITH_UNIT.fullmatch(answer)
    if with_unit and (with_unit["unit"] is None or is_measure(Token("word", with_unit["unit"]))):
        return with_unit[1]
    # `24/12 = 2 dozen` counts dozens, but `2 dozen` is 24.
    return answer + (f" {word}" if word in _MATHEMATICAL or (word == "dozen" and "=" not in run.text) else "")


def _denied(before: str) -> bool:
    """Whether the text before a number denies it: `it is not`, `I doubt that it is`, `between 3 and`."""
    nearest = " ".join(_CLAUSE.split(before)[-1].split()[-NEAR:])
    predicate = _IS.split(nearest)[-1]
    return bool(_UNBELIEVED.search(nearest) or _DOUBT.search(predicate) or _BETWEEN.search(before))


def _listed(line: str, runs: list[Formula]) -> str | None:
    """The list after a verb, up to the end of the sentence: `the roots are 2 and 3`."""
    if len(runs) < 2 or line[runs[-1].end :].strip(" .$*"):
        return None
    first = len(runs) - 1
    while first > 0 and line[runs[first - 1].end : runs[first].start].strip().lower() in (",", "and", ", and", ";"):
        first -= 1
    named = all("=" in run.text for run in runs[first:])
    if first < len(runs) - 1 and named:
        return ", ".join(tidy(run.text).replace("$", "") for run in runs[first:])
    if first == len(runs) - 1 or not re.search(r"(?:\b(?:is|are|be|and)|=|:)\s{1,3}\$?$", line[: runs[first].start]):
        return None
    return ", ".join(tidy_formula(run.text) for run in runs[first:])


def _conclusion(run: str) -> str:
    """The result of a computation: the text after its last `=`. All of it if it is not an equation."""
    if re.search(r"[<>≠≤≥]|\\(?:n?[lg]e|n?eq|leq|geq|neq|in|to)\b|!=", run):
        return run
    sides = [side.strip() for side in re.split(r"=|≈|\\approx", run)]
    return next((side for side in reversed(sides) if any(c.isdigit() for c in side)), run)


_FINDERS = (("boxed", last_boxes), ("hashes", last_hashes), ("phrase", _phrase), ("last_number", _last_number))
