"""A row's prompt and response in the tokens of another tokenizer.

If the question is named (`--data.input_key`, `--data.apply_chat_template`), the prompt is rendered again, as the
annotator does. Otherwise its stored text is tokenized as it is. The response keeps its text. If it had an end token,
it gets the target's own: that of the chat template if this renders the prompt, else EOS. Both are tokenized together.
If that changes the prompt's tokens, they are tokenized separately.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from openrlhf_cft.data.annotated import Row
from openrlhf_cft.data.literal_text import LiteralText, NotText
from openrlhf_cft.data.records import ID, PROMPT, PROMPT_IDS, RESPONSE, RESPONSE_IDS
from openrlhf_cft.data.rendering import TemplateRefused, is_token_ids, prompt_token_ids, render_prompt
from openrlhf_cft.data.source import SourceSettings
from openrlhf_cft.data.stop_tokens import turn_end
from openrlhf_cft.data.token_text import Piece, decode, pieces, special_ids
from openrlhf_cft.errors import InputError
from openrlhf_cft.masks.carry import OTHER_TEXT, Layout, NotCarried, layout, one_by_one

NO_PROMPT = "the prompt is empty"
UNKNOWN = "the prompt has characters that the target's tokenizer does not know"
NO_RESPONSE = "the response has no token"
NO_QUESTION = "the column of --data.input_key is empty"


@dataclass(frozen=True)
class Carried:
    """A row's tokens on both sides, over one text."""

    prompt: str
    prompt_ids: list[int]  # (P,) the target's
    response: str
    response_ids: list[int]  # (T,) the target's
    source: Layout
    target: Layout


class Retokenizer:
    """Converts rows of one tokenizer to rows of another.

    Args:
        source: the tokenizer of the rows.
        target: the other one; it has an EOS.
        rendering: how a prompt is made from a row's question; None: the stored text is used as it is.
        same: whether both are the same tokenizer; then the response's ids do not change.
        add_bos: see `SourceSettings`; for the target.
        literal: whether special tokens that are text in the source's rows, or in a question, stay text.
    """

    def __init__(
        self,
        source: Any,
        target: Any,
        rendering: SourceSettings | None,
        same: bool,
        add_bos: str = "auto",
        literal: bool = True,
    ) -> None:
        if target.eos_token_id is None:
            raise InputError("--to: the tokenizer has no EOS token, which ends a response")
        self._source, self._target = source, target
        turn = turn_end(target) if rendering is not None and rendering.apply_chat_template else None
        self._end = target.eos_token_id if turn is None else turn
        self._rendering, self._same, self._add_bos = rendering, same, add_bos
        self._text = LiteralText(target, literal)
        self._special = special_ids(source)
        self._known = set(target.convert_ids_to_tokens(sorted(special_ids(target))))
        if rendering is not None and rendering.apply_chat_template and not target.chat_template:
            raise InputError(
                "--data.apply_chat_template: the tokenizer of --to has no chat template; use --data.input_template"
            )

    def __call__(self, row: Row) -> Carried:
        """Convert one row.

        Raises:
            NotCarried: this row cannot be carried, for a reason that other rows may share.
            InputError: no row can be carried: the prompt holds special tokens that the target does not know.
        """
        try:
            return self._carried(row)
        except NotText as error:
            raise NotCarried(str(error)) from error

    def _carried(self, row: Row) -> Carried:
        prompt = self._prompt(row)
        if self._rendering is None and self._same:
            prompt_ids = list(row[PROMPT_IDS])
        else:
            prompt_ids = prompt_token_ids(prompt, self._text, self._add_bos)
        if not prompt_ids:
            raise NotCarried(NO_PROMPT)
        unknown = self._target.unk_token_id
        shown = self._text.show(prompt)
        if unknown is not None and prompt_ids.count(unknown) > shown.count(str(self._target.unk_token)):
            raise NotCarried(UNKNOWN)
        source_ids = list(row[RESPONSE_IDS])
        if self._same:
            same_layout = one_by_one(len(source_ids))
            return Carried(shown, prompt_ids, row[RESPONSE], source_ids, same_layout, same_layout)
        if not source_ids:
            raise NotCarried(NO_RESPONSE)
        if self._rendering is None:
            text = added_text(self._source, row[PROMPT_IDS], source_ids)
        else:
            text = decode(self._source, source_ids)
        before = layout(self._source, source_ids, text)
        ids, after = self._response(prompt, text, before.ended)
        return Carried(shown, prompt_ids, decode(self._target, ids), ids, before, after)

    def _prompt(self, row: Row) -> str:
        """The prompt's text that the target gets, with stand-ins for special tokens that are text."""
        if self._rendering is not None:
            value = row[self._rendering.input_key]
            if not value:
                raise NotCarried(NO_QUESTION)
            if is_token_ids(value):
                raise InputError(f"--data.input_key: {self._rendering.input_key!r} holds token ids, not a question")
            try:
                return render_prompt(value, self._text, self._rendering)
            except TemplateRefused as error:
                raise NotCarried(str(error)) from error
            except InputError as error:
                raise InputError(f"row {row[ID]!r}: column {self._rendering.input_key!r}: {error}") from error
        for token in self._special.intersection(_without_bos(self._source, row)):
            name = str(self._source.convert_ids_to_tokens(token))
            if not self._same and name not in self._known:
                raise InputError(
                    f"row {row[ID]!r}: the prompt holds {name!r}, a special token that the tokenizer of --to does not "
                    "know: name the question's column, --data.input_key question --data.apply_chat_template, to "
                    "render it anew"
                )
        return self._stored_prompt(row)

    def _stored_prompt(self, row: Row) -> str:
        """The prompt's text. Special tokens among its token ids stay special tokens; all others in it are text."""
        text = str(row[PROMPT])
        if not self._text.has_special(text):
            return str(self._text.hide(text))
        runs = [(special, list(run)) for special, run in groupby(pieces(self._source, row[PROMPT_IDS]), _is_special)]
        parts = [("".join(piece.text for piece in run), special) for special, run in runs]
        if parts and parts[0][1] and not text.startswith(parts[0][0]):  # BOS, which is not part of the text
            del parts[0]
        if "".join(part for part, _ in parts) != text:  # a decoder wrote it differently, so nothing is known
            return text
        return "".join(part if special else self._text.hide(part) for part, special in parts)

    def _response(self, prompt: str, text: str, ended: bool) -> tuple[list[int], Layout]:
        """The response's tokens and where they lie; if possible, tokens that spell the text after the prompt."""
        target, end, hidden = self._target, [self._end] if ended else [], self._text.hide(text)
        prompt_ids = self._text.token_ids(prompt)
        together, apart = self._text.token_ids(prompt + hidden), self._text.token_ids(hidden)
        if together[: len(prompt_ids)] == prompt_ids:
            ids = together[len(prompt_ids) :]
            if added_text(target, prompt_ids, ids) == text:
                return [*ids, *end], layout(target, [*ids, *end], text)
        if decode(target, apart) != text:
            raise NotCarried(OTHER_TEXT)
        return [*apart, *end], layout(target, [*apart, *end], text)


def added_text(tokenizer: Any, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> str:
    """The text that a response adds to its prompt: its own text, with a space before it that a decoder leaves out.

    Special tokens are not text.
    """
    before, whole = decode(tokenizer, prompt_ids), decode(tokenizer, [*prompt_ids, *response_ids])
    alone = decode(tokenizer, response_ids)
    added = whole[len(before) :]
    return added if whole.startswith(before) and added.endswith(alone) else alone


def _without_bos(tokenizer: Any, row: Row) -> list[int]:
    """A prompt's token ids without a BOS that is not part of its text. The target adds its own BOS, if any."""
    ids = list(row[PROMPT_IDS])
    added = ids[:1] == [tokenizer.bos_token_id] and not str(row[PROMPT]).startswith(str(tokenizer.bos_token))
    return ids[1:] if added else ids


def _is_special(piece: Piece) -> bool:
    return piece.special
