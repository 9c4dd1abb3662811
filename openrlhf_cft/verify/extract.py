r"""The answer in a response: the last `\boxed{}`, else `#### x`, else "the answer is x", else the last number.

Every step takes time linear in the text, whatever the text: a response is a model's output and may be adversarial.
The regular expressions have no nested unbounded repetition, and of a very long text only the end is read.
"""

from __future__ import annotations

import re

MAX_CHARS = 4_000_000  # of a response, from its end; more than the longest contexts of today's models hold

MAX_NUMBER_CHARS = 1_000  # of the last number; what is longer is cut to its end

# A brace escaped by a backslash is text, so backslash pairs are consumed together.
_BRACE = re.compile(r"\\boxed\s{0,3}\{|\\.|[{}]", re.DOTALL)
_PHRASE = re.compile(
    r"\banswer(?:\s{1,3}is|\s{0,3}\*{0,2}[:=])(?:\s{1,3}(?:then|thus|therefore))?[\s:*]{0,8}", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}])[-−])?"  # a sign, and not the minus of a difference
    r"(?:\\[dt]?frac\{-?\d{1,50}\}\{\d{1,50}\}"
    # The repetition is bounded: unbounded, a long run of groups would be read again from each of them.
    r"|\$?(?<!\d)(?:\d{1,3}(?:,\d{3}){1,20}(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:\s?/\s?\d+(?![\d.]*/))?)"
    r"\\?%?"
)
# "5 apples" and "5, because" are 5, but "5 or 7", "5, 7" and "5 pi" are more than their first number.
_ASIDE = re.compile(r"\s*$|[,;]?\s+(?!(?:or|and|pi|sqrt|million|billion|trillion)\b)[A-Za-z]{2,}")


def extract_answer(text: str) -> tuple[str, str] | None:
    """The answer that a response gives, and how it was found.

    Args:
        text: a response; only its last `MAX_CHARS` characters are read.

    Returns:
        The answer, never empty, and one of "boxed", "hashes", "phrase", "last_number"; None where there is no answer.
    """
    text = text[-MAX_CHARS:]
    for found_by, find in _FINDERS:
        answer = find(text)
        if answer:
            return answer, found_by
    return None


def gold_answer(answer: str) -> str:
    """The answer that a gold solution marks, boxed or after `####`; an answer without marks as it is."""
    found = extract_answer(answer)
    return found[0] if found and found[1] in ("boxed", "hashes") else answer


def gold_response(answer: str) -> str:
    """A response that gives the gold answer: what a verifier must call correct for a row to be of any use."""
    return f"\\boxed{{{gold_answer(answer)}}}"


def last_boxed(text: str) -> str | None:
    r"""The content of the `\boxed{}` that opens last, among those that are closed and not empty (`{}` is a quoted
    instruction, not an answer)."""
    start = text.find("\\boxed")
    if start < 0:
        return None
    best = (-1, -1)  # start and end of the content
    opened: list[int] = []  # start of the content of each open brace, -1 where it is no box
    for match in _BRACE.finditer(text, start):
        token = match.group()
        if token.startswith("\\boxed"):
            opened.append(match.end())
        elif token == "{":
            opened.append(-1)
        elif token == "}" and opened:
            content = opened.pop()
            if content > best[0] and text[content : match.start()].strip():
                best = (content, match.start())
    return text[best[0] : best[1]].strip() if best[0] >= 0 else None


def last_hashes(text: str) -> str | None:
    """What follows the last `####` on its line, the form of GSM8K's solutions."""
    start = text.rfind("####")
    return _tidy(text[start + 4 :].partition("\n")[0]) if start >= 0 else None


def _phrase(text: str) -> str | None:
    """What follows the last "the answer is" or "answer:", up to the end of the sentence."""
    end = None
    for match in _PHRASE.finditer(text):
        end = match.end()
    if end is None:
        return None
    stop = _SENTENCE_END.search(text, end)
    answer = _tidy(text[end : stop.start() if stop else len(text)])
    number = _NUMBER.match(answer)
    if number and _ASIDE.match(answer, number.end()):
        return _tidy_number(number.group())
    return answer


def _last_number(text: str) -> str | None:
    """The last number: signed, with thousands separators, decimals, a fraction or a percentage."""
    end = max(text.rfind(digit) for digit in "0123456789")
    if end < 0:
        return None
    last = None
    for last in _NUMBER.finditer(text[max(0, end - MAX_NUMBER_CHARS) :]):  # noqa: B007, the last match is wanted
        pass
    return _tidy_number(last.group()) if last else None


def _tidy(answer: str) -> str:
    r"""Without the marks around an answer: Markdown emphasis, `$…$`, `\(…\)` and the dot that ends the sentence."""
    answer = answer.strip().strip("*`").strip().removesuffix(".").strip("$*` ")
    for left, right in (("\\(", "\\)"), ("\\[", "\\]")):
        answer = answer.removeprefix(left).removesuffix(right).strip()
    return answer


def _tidy_number(number: str) -> str:
    return number.replace("−", "-").replace("$", "").replace("\\%", "%")


_FINDERS = (("boxed", last_boxed), ("hashes", last_hashes), ("phrase", _phrase), ("last_number", _last_number))
