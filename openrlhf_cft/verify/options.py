r"""Gold answers of the math verifier that are the letter of an option, with or without the option's text.

lettered(tokens(r"\text{(A) }25"))      # ("A", the tokens of 25)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from openrlhf_cft.verify.notation import Token

_LABELS = "ABCDEF"
_OPERATORS = frozenset("+ * / × ^ _ = , . ; : ! ? < > <= >= != | ' % & ) ]".split())
Option = tuple[str, Sequence[Token]]  # the letter, and the option's text


def lettered(of: Sequence[Token]) -> Option | None:
    """The letter of an option, and its text: `A`, `(A)`, `A. 25`, `(A) 25`, `Option A`; None if there is no option."""
    of = [token for token in of if not (token.text in "{}" and token.kind == "mark")]
    if of and of[0].kind == "word" and of[0].text.lower() in ("option", "choice", "answer"):
        of = of[1:]
    texts = [token.text for token in of]
    for opening, closing in ((1, 1), (0, 1), (0, 0)):
        length = opening + 1 + closing
        if len(of) < length or not ("A" <= texts[opening] <= "J") or len(texts[opening]) > 1:
            continue
        if (opening and texts[0] not in "([") or (closing and texts[opening + 1] not in (")", "]", ".", ":")):
            continue
        if closing and not opening and texts[1] == "]":
            continue
        if not closing and len(of) > 1:
            continue
        return texts[opening], of[length:]
    return None


def same_option(
    gold: Option, given: Sequence[Token], same: Callable[[Sequence[Token], Sequence[Token]], bool]
) -> bool:
    """Whether the gold option is given: its letter, its text, or both. Two letters are not an answer."""
    letter, text = gold
    answered = lettered(given)
    if answered is None:
        return bool(text) and same(text, given)
    if answered[0] != letter:
        return False
    if not answered[1]:
        return True
    if not text:
        return not any(lettered([token]) for token in answered[1] if token.kind == "letter")
    return same(text, answered[1])


def without_label(gold: Sequence[Token], given: Sequence[Token]) -> Sequence[Token] | None:
    r"""The value behind the label of an option, `\textbf{(C) } 12` or `(C) 12`; None if there is no such label.

    `(C)12` is a product. So are all of these if the gold answer has the letter.
    """
    bracketed = [token.text for token in given[:3:2]] == ["(", ")"]
    length = 3 if bracketed else 2
    if len(given) <= length:
        return None
    letter, rest = given[length - 2], given[length:]
    if letter.kind != "letter" or letter.text not in _LABELS or not rest[0].gap:
        return None
    if any(token.text == letter.text for token in gold):
        return None
    if not bracketed and not (letter.prose and given[1].prose and given[1].text in (".", ")", ":")):
        return None
    if rest[0].text == "-" and not letter.prose and (len(rest) < 2 or rest[1].gap):
        return None  # C - 12
    return None if rest[0].text in _OPERATORS else rest
