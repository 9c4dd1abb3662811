"""Response tokens as text: the characters that each token stands for, and its kind.

    for token in pieces(tokenizer, row["response_token_ids"]):
        print(token.kind, response[token.start : token.end])

Offsets count the characters of `decode(token_ids)`, which is the `response` of an annotated row. They are exact. If a
character is spread over several tokens, each of them spans it, and the last one completes it. Special tokens are not
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

CONTEXT = 8  # complete tokens decoded before those being read: a decoder may treat a text's first token differently
UNKNOWN = "\ufffd"  # how a decoder shows a byte that is not a character
BYTE = re.compile("<0x[0-9A-F]{2}>")  # the name of a token that is one byte
OPERATORS = frozenset("*/-^%")  # besides Unicode's mathematical symbols; the hyphen is ASCII's minus


class Kind(str, enum.Enum):
    """The kind of a token by the characters that it spans: the first kind that fits, in this order."""

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

    text: str  # the characters that it completes; for a special token its name
    start: int  # the first character of the text that it spans, even in part
    end: int  # one after the last such character; equal to `start` for a special token
    kind: Kind
    special: bool
    partial: bool  # its last character continues in the next token


def pieces(tokenizer: Any, token_ids: Sequence[int]) -> list[Piece]:
    """The tokens of a text, with their characters.

    Args:
        tokenizer: of the `transformers` API.
        token_ids: (T,) as they were generated.

    Returns:
        (T,) pieces. The joined texts of those that are not special equal `decode(token_ids)`.
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
    """Tokens that are not text: those that have a role, such as EOS, and all others that `decode` leaves out.

    The latter, for example the headers of Llama 3's chat template, are not among `tokenizer.all_special_ids`.
    """
    others = (token for token, added in tokenizer.added_tokens_decoder.items() if added.special)
    return {*tokenizer.all_special_ids, *others}


def decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """The text of token ids without special tokens. This is the text that the annotator verified."""
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=True))


def kind_of(text: str) -> Kind:
    """The kind of a token, not a special one, that spans these characters (at least one)."""
    if any(character.isdigit() for character in text):
        return Kind.DIGITS
    if any(character.isalpha() for character in text):
        return Kind.WORD
    if any(character in OPERATORS or unicodedata.category(character) == "Sm" for character in text):
        return Kind.OPERATOR
    return Kind.WHITESPACE if text.isspace() else Kind.PUNCTUATION


def token_text(tokenizer: Any, before: Sequence[int], token_id: int, special: Collection[int] | None = None) -> str:
    """The text that a token would add, for display: its name if it is special, U+FFFD for part of a character.

    Args:
        tokenizer: of the `transformers` API.
        before: the tokens before it; only the last `CONTEXT` are used.
        token_id: the token.
        special: the result of `special_ids`; None calls it, which takes milliseconds with thousands of added tokens.
    """
    if token_id in (special_ids(tokenizer) if special is None else special):
        return str(tokenizer.convert_ids_to_tokens(token_id))
    context = [int(token) for token in before[-CONTEXT:]]
    whole, part = decode(tokenizer, [*context, int(token_id)]), decode(tokenizer, context)
    return whole[_common(whole, part) :]


def _spans(tokenizer: Any, ids: list[int], text: str) -> list[tuple[int, int, int]]:
    """Per token: its first character, one after the last that it completes, and one after the last that it spans.

    Only a few tokens are decoded at a time. If the result does not add up to `text`, because the decoder looks back
    further than `CONTEXT` tokens, each token is decoded again with all tokens before it.
    """
    return _windowed_spans(tokenizer, ids, text) or _prefix_spans(tokenizer, ids, text)


def _windowed_spans(tokenizer: Any, ids: list[int], text: str) -> list[tuple[int, int, int]] | None:
    """See `_spans`; None where the windows do not add up."""
    spans: list[tuple[int, int, int]] = []
    window = 0  # first token of the window
    known = 0  # characters of the text that the tokens before `open_at` complete
    shown = 0  # characters of the window that its tokens before `open_at` complete
    open_at = 0  # the first token whose text is not complete yet
    whole = deque([0])  # tokens that begin with a new character: a window must not begin within a character
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
    """The runs of tokens that are one byte each and together are not UTF-8: the index of each run, and its length.

    Decoders with a fallback to bytes show every byte of such a run as U+FFFD, up to the last. A run that is cut within
    a character is shown differently, depending on whether its last byte comes.
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
    """See `_spans`. Quadratic, and right for every decoder that does not change text that it already wrote."""
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
