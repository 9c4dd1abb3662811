"""Read special tokens in a user's text as ordinary text, so that a question cannot forge a turn.

    text = LiteralText(tokenizer)
    rendered = template(text.hide(question))    # a stand-in of one character replaces each special token
    ids = text.token_ids(rendered)              # the template's <|im_end|> is one token, the question's several
    text.show(rendered)                         # as a person reads it

The stand-ins pass through templates, so the whole text can be tokenized at once. Tokenizing it in pieces would be
wrong, because tokenizers treat the beginning of a text differently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from openrlhf_cft.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL_TOKENS = ("auto", "text", "control")
# Characters of Unicode's private use, which no text needs. WRITTEN and TEMPLATES are the first stand-ins for special
# tokens that a user or a template wrote. ESCAPE stands before such a character in the text itself.
WRITTEN, TEMPLATES, ESCAPE = 0x100000, 0x108000, "\U0010fffd"
PRIVATE = "[\U00100000-\U0010fffd]"


WAY_OUT = "--data.special_tokens control makes those that are written in a row control tokens"


class NotText(InputError):
    """The tokenizer cannot read a special token in the text as text."""


class LiteralText:
    """A tokenizer's special tokens, in what a user wrote and in what a template wrote.

    Args:
        tokenizer: of the model.
        literal: whether special tokens that a user wrote stay text; else all are control tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, literal: bool = True) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items() if literal else ()
        ids = {str(token.content): token_id for token_id, token in added if token.special and token.content}
        self._names = sorted(ids)
        self._ids = [ids[name] for name in self._names]
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._special = re.compile(_any_of(self._names) or r"(?!)")
        self._hidden = re.compile(f"{self._special.pattern}|{PRIVATE}") if self._names else self._special

    def has_special(self, text: str) -> bool:
        """Whether a text contains a special token."""
        return bool(self._special.search(text))

    def hide(self, value: Any) -> Any:
        """Replace the special tokens in a text, or in messages, with stand-ins."""
        if isinstance(value, str):
            return self._hidden.sub(self._stand_in, value)
        if isinstance(value, list):
            return [self.hide(part) for part in value]
        return {key: self.hide(part) for key, part in value.items()} if isinstance(value, dict) else value

    def show(self, text: str) -> str:
        """The original text, with special tokens in place of their stand-ins."""
        return re.sub(f"{ESCAPE}(.)|({PRIVATE})", self._original, text) if self._names else text

    def token_ids(self, text: str) -> list[int]:
        """The token ids of a text with stand-ins; no BOS is added.

        Raises:
            NotText: a special token in it cannot be read as text by this tokenizer.
        """
        if not self.has_special(self.show(self._special.sub("", text))):
            return [int(token) for token in self.tokenizer(self.show(text), add_special_tokens=False)["input_ids"]]
        control = self._special.sub(lambda match: chr(TEMPLATES + self._numbers[match[0]]), text)
        ids = list(self._twin.encode(self.show(control), add_special_tokens=False).ids)
        special = {*self._ids} - {self.tokenizer.unk_token_id}
        expected = [self._ids[self._numbers[name]] for name in self._special.findall(text)]
        if sum(token in special for token in ids) != sum(token in special for token in expected):
            names = ", ".join(sorted(set(self._special.findall(self.show(text)))))
            raise NotText(f"this tokenizer cannot read all of {names} as text; {WAY_OUT}")
        return ids

    def _stand_in(self, match: re.Match[str]) -> str:
        number = self._numbers.get(match[0])
        return ESCAPE + match[0] if number is None else chr(WRITTEN + number)

    def _original(self, match: re.Match[str]) -> str:
        if match[1] is not None:
            return match[1]
        number = ord(match[2]) - WRITTEN
        return self._names[number] if number < len(self._names) else match[2]

    @cached_property
    def _twin(self) -> Any:
        """A copy of the tokenizer, in which one character replaces the text of each special token. All ids stay."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise NotText(f"only a fast tokenizer can read a special token as text, and this one is slow; {WAY_OUT}")
        names = {name: chr(TEMPLATES + number) for name, number in self._numbers.items()}
        state = json.loads(backend.to_str())
        for token in state["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        model = state["model"]
        if model.get("unk_token") is not None:
            model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(name, name): token_id for name, token_id in model["vocab"].items()}
        else:
            model["vocab"] = [[names.get(name, name), *rest] for name, *rest in model["vocab"]]
        state["padding"] = state["truncation"] = None
        twin = type(backend).from_str(json.dumps(state))
        for name, character in names.items():
            assert twin.token_to_id(character) == self._ids[self._numbers[name]], f"{name} has another id"
        return twin


def _any_of(texts: Sequence[str]) -> str:
    """A regular expression that matches the longest of several texts, as a tokenizer does.

    It tries a common beginning once for all texts that share it: Gemma has 6,249 special tokens.
    """
    rest: dict[str, list[str]] = {}
    for text in texts:
        if text:
            rest.setdefault(text[0], []).append(text[1:])
    branches = "|".join(re.escape(first) + _any_of(others) for first, others in rest.items())
    return f"(?:{branches}){'?' if '' in texts else ''}" if branches else ""
