"""Response tokens as text: the characters that each stands for, and what kind of token it is.

    for token in pieces(tokenizer, row["response_token_ids"]):
        print(token.kind, response[token.start : token.end])

Offsets count the characters of `decode(token_ids)`, which is the `response` of an annotated row. They are exact: where
a character is spread over several tokens, each of them spans it, and the last one completes it. Special tokens are no
text and span nothing.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

CONTEXT = 8  # complete tokens before those whose text is read: a decoder may treat the first of a text otherwise
UNKNOWN = "\ufffd"  # a byte that is no character, as a decoder shows it
BYTE = re.compile("<0x[0-9A-F]{2}>")  # the name of a token that is one byte
OPERATORS = frozenset("*/-^%")  # beside Unicode's mathematical symbols; ASCII's hyphen is its minus


class Kind(str, enum.Enum):
    """What a token is, by the characters that it spans; the first that fits, in this order."""

    END = "end"  # a special token
    DIGITS = "digits"  # has a digit
    WORD = "word"  # has a letter
    OPERATOR = "operator"  # has a mathematical symbol
    WHITESPACE = "whitespace"  # nothing else
    PUNCTUATION = "punctuation"  # the rest, symbols and emoji among them

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Piece:
    """One token of a text."""

    text: str  # the characters that it completes; of a special token its name
    start: int  # the first character of the text that it is, or is part of
    end: int  # behind the last one; equal to `start` for a special token
    kind: Kind
    special: bool
    partial: bool  # its last character goes on in the next token


def pieces(tokenizer: Any, token_ids: Sequence[int]) -> list[Piece]:
    """The tokens of a text, with their characters.

    Args:
        tokenizer: of the `transformers` API.
        token_ids: (T,) as they were generated.

    Returns:
        (T,) pieces. The texts of those that are not special, joined, are `decode(token_ids)`.
    """
    ids = [int(token) for token in token_ids]
    text = decode(tokenizer, ids)
    special = special_ids(tokenizer)
    pieces_T, before = [], 0
    for token, (start, complete, end) in zip(ids, _spans(tokenizer, ids, text), strict=True):
        assert start == before, "spans leave no gap"
        before = complete
        if token in special:
            name = str(tokenizer.convert_ids_to_tokens(token))
            pieces_T.append(Piece(name, start, start, Kind.END, special=True, partial=False))
        else:
            kind = kind_of(text[start:end])
            pieces_T.append(Piece(text[start:complete], start, end, kind, special=False, partial=end > complete))
    return pieces_T


def special_ids(tokenizer: Any) -> set[int]:
    """Tokens that are no text: those that have a role, as EOS has, and all others that `decode` leaves out.

    The latter, headers of Llama 3's chat template for one, are not among `tokenizer.all_special_ids`.
    """
    others = (token for token, added in tokenizer.added_tokens_decoder.items() if added.special)
    return {*tokenizer.all_special_ids, *others}


def decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """The text of token ids, special tokens left out: what the annotator verified."""
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=True))


def kind_of(text: str) -> Kind:
    """The kind of a token that spans these characters, at least one unless it is special."""
    if any(character.isdigit() for character in text):
        return Kind.DIGITS
    if any(character.isalpha() for character in text):
        return Kind.WORD
    if any(character in OPERATORS or unicodedata.category(character) == "Sm" for character in text):
        return Kind.OPERATOR
    return Kind.WHITESPACE if text.isspace() else Kind.PUNCTUATION


def token_text(tokenizer: Any, before: Sequence[int], token_id: int, special: Collection[int] | None = None) -> str:
    """What a token would add to a text, to show it: its name if it is special, U+FFFD for part of a character.

    Args:
        tokenizer: of the `transformers` API.
        before: the tokens before it; the last few are looked at.
        token_id: the token.
        special: of `special_ids`, which takes milliseconds with thousands of added tokens; None to find them here.
    """
    if token_id in (special_ids(tokenizer) if special is None else special):
        return str(tokenizer.convert_ids_to_tokens(token_id))
    context = [int(token) for token in before[-CONTEXT:]]
    whole, part = decode(tokenizer, [*context, int(token_id)]), decode(tokenizer, context)
    return whole[_common(whole, part) :]


def _spans(tokenizer: Any, ids: list[int], text: str) -> list[tuple[int, int, int]]:
    """Per token: its first character, behind the last that it completes, behind the last that it is part of.

    Reads only a few tokens at a time. If that does not add up to `text`, because the decoder looks further than
    `CONTEXT` tokens back, all tokens before each are decoded again.
    """
    return _windowed_spans(tokenizer, ids, text) or _prefix_spans(tokenizer, ids, text)


def _windowed_spans(tokenizer: Any, ids: list[int], text: str) -> list[tuple[int, int, int]] | None:
    """See `_spans`; None where the windows do not add up."""
    spans: list[tuple[int, int, int]] = []
    window = 0  # first token of the window
    known = 0  # characters of the text that the tokens before the first open one complete
    shown = 0  # characters of the window that those of them in it complete
    open_at = 0  # the first token whose text is not complete yet
    whole = deque([0])  # tokens before which a character ends: a window that began within one would show it otherwise
    broken = _broken_runs(tokenizer, ids)
    for index in range(len(ids)):
        if index in broken and open_at == index and text.startswith(UNKNOWN * broken[index], known):
            spans += [(known + step, known + step + 1, known + step + 1) for step in range(broken[index])]
            known, open_at = known + broken[index], index + broken[index]
            window, whole = index, deque([index])
            shown = len(decode(tokenizer, ids[window:open_at]))
        if index < open_at:
            continue
        decoded = decode(tokenizer, ids[window : index + 1])
        new = decoded[shown:]
        same = _common(new, text[known : known + len(new)])
        start = spans[-1][1] if spans else 0
        complete = known + same
        if complete < start:
            return None
        spans.append((start, complete, min(len(text), complete + (len(new) > same))))
        if len(new) == same:
            known, open_at = complete, index + 1
            whole.append(open_at)
            while len(whole) > 1 and whole[1] <= open_at - CONTEXT:
                whole.popleft()
            window = whole[0]
            shown = len(decode(tokenizer, ids[window:open_at]))
    joined = all(end <= len(text) for _, _, end in spans)
    return spans if joined and (spans[-1][1] if spans else 0) == len(text) else None


def _broken_runs(tokenizer: Any, ids: list[int]) -> dict[int, int]:
    """Where tokens that are one byte each, and are no UTF-8 together, begin, and how many they are.

    Decoders with a fallback to bytes show every byte of such a run as U+FFFD, up to the last: one that is cut within a
    character is shown otherwise as soon as its last byte comes, or does not.
    """
    runs: dict[int, int] = {}
    run = bytearray()
    for index, name in enumerate([*tokenizer.convert_ids_to_tokens(ids), None]):
        if isinstance(name, str) and BYTE.fullmatch(name):
            run.append(int(name[1:-1], 16))
            continue
        try:
            run.decode()
        except UnicodeDecodeError:
            runs[index - len(run)] = len(run)
        run.clear()
    return runs


def _prefix_spans(tokenizer: Any, ids: list[int], text: str) -> list[tuple[int, int, int]]:
    """See `_spans`; quadratic, and right for every decoder that does not take back what it wrote."""
    spans: list[tuple[int, int, int]] = []
    start = 0
    broken = _broken_runs(tokenizer, ids)
    for index in range(len(ids)):
        if index in broken and text.startswith(UNKNOWN * broken[index], start):
            spans += [(start + step, start + step + 1, start + step + 1) for step in range(broken[index])]
            start += broken[index]
        if index < len(spans):
            continue
        decoded = decode(tokenizer, ids[: index + 1])
        complete = len(text) if index + 1 == len(ids) else max(start, _common(decoded, text))
        spans.append((start, complete, min(len(text), complete + (len(decoded) > complete))))
        start = complete
    return spans


def _common(left: str, right: str) -> int:
    """Length of the longest common prefix."""
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return index
    return min(len(left), len(right))
