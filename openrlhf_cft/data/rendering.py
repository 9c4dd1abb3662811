"""Render a question, and a given response, as the text and token ids that the model reads.

Prompts are rendered as in OpenRLHF's `PromptDataset`, responses as in its `SFTDataset`.
"""

from __future__ import annotations

from string import Formatter
from typing import TYPE_CHECKING, Any

from openrlhf_cft.data.literal_text import LiteralText
from openrlhf_cft.data.model_files import first_line
from openrlhf_cft.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from openrlhf_cft.data.source import SourceSettings


def check_template(template: str) -> None:
    """Refuse an `--data.input_template` that OpenRLHF's `template.format(question)` could not fill.

    Raises:
        InputError: the template does not have `{}` exactly once, or has other braces that are not doubled.
    """
    try:
        fields = [field for field in Formatter().parse(template) if field[1] is not None]
    except ValueError:  # an unmatched brace
        fields = []
    places = [name for _, name, form, conversion in fields if name in ("", "0") and not form and not conversion]
    if len(fields) != 1 or len(places) != 1:
        raise InputError(
            f"--data.input_template: {template!r} has to have {{}} once, for the question; braces that are to stay "
            "are doubled: \\boxed{{}}"
        )


class TemplateRefused(InputError):
    """The chat template does not render the messages."""


class ResponseChanged(InputError):
    """The chat template changes a given response, so a mask would belong to another text."""


def render_prompt(value: Any, text: LiteralText, settings: SourceSettings) -> str:
    """Render one source value as the prompt, like OpenRLHF's `preprocess_data` (openrlhf/datasets/prompts_dataset.py).

    Args:
        value: a text; with `--data.apply_chat_template` also a list of messages, the last of them to be answered.
        text: of the tokenizer with the template.
        settings: how to render.

    Returns:
        The prompt, with stand-ins for special tokens in the value.

    Raises:
        InputError: there is no question, or the settings or the template refuse the messages.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        raise InputError("there is no question")
    if settings.apply_chat_template:
        turns = messages(value, "user")
        if turns[-1]["role"] == "assistant":
            raise InputError("the conversation ends with the assistant's own turn, so there is nothing to answer")
        return _templated(turns, text, add_generation_prompt=True)
    if not isinstance(value, str):
        raise InputError(f"{value!r:.80} is no text: a list of messages needs --data.apply_chat_template")
    hidden = str(text.hide(value))
    return settings.input_template.format(hidden) if settings.input_template else hidden


def messages(value: Any, role: str) -> list[dict[str, Any]]:
    """A text as one message with this role; a list of messages as JSON would have them.

    Arrow gives every message the keys of all messages in its column, and null where it lacks one. Nulls are removed.

    Raises:
        InputError: the value is neither.
    """
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not value or not all(isinstance(message, dict) for message in value):
        raise InputError(f"{value!r:.80} is neither a text nor a list of messages")
    turns = [{key: part for key, part in message.items() if part is not None} for message in value]
    for turn in turns:
        if not isinstance(turn.get("role"), str) or len(turn) == 1:
            raise InputError(f"the message {turn!r:.80} has no {'content' if 'role' in turn else 'role'}")
    return turns


def _templated(turns: list[dict[str, Any]], text: LiteralText, **options: bool) -> str:
    """The text that the chat template renders, with stand-ins.

    Raises:
        InputError: there is no template.
        TemplateRefused: the template refuses the turns; the message quotes it.
    """
    if not text.tokenizer.chat_template:
        raise InputError("--data.apply_chat_template: the tokenizer has no chat template; use --data.input_template")
    try:
        return str(text.tokenizer.apply_chat_template(text.hide(turns), tokenize=False, **options))
    except Exception as error:  # a template is a program of its own and may raise anything
        raise TemplateRefused(f"the chat template refuses it: {first_line(error)}") from error


def begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer adds BOS before a text by itself, as those of Llama and Gemma do."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


def prompt_token_ids(prompt: str, text: LiteralText, add_bos: str) -> list[int]:
    """A prompt's token ids, after BOS if the model was trained with it. A template may have written BOS already.

    OpenRLHF never adds BOS, so its SFT and GRPO give a base model of such a family a different prompt.

    Args:
        prompt: its text, as `render_prompt` returns it.
        text: of the model's tokenizer.
        add_bos: `auto` adds BOS as `tokenizer(prompt)` does, but never twice; `never` does not add it.
    """
    ids, tokenizer = text.token_ids(prompt), text.tokenizer
    missing = ids and ids[0] != tokenizer.bos_token_id and add_bos == "auto" and begins_with_bos(tokenizer)
    return [tokenizer.bos_token_id, *ids] if missing else ids


def is_token_ids(value: Any) -> bool:
    """Whether a column's value is a list of token ids, as in rows that were annotated before."""
    return isinstance(value, list) and bool(value) and all(type(number) is int for number in value)


def check_ids(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse ids that the tokenizer does not have.

    Raises:
        InputError: names the first one, and its position.
    """
    for position, token_id in enumerate(ids):
        if not 0 <= token_id < len(tokenizer):
            raise InputError(
                f"token id {token_id} at position {position}: the tokenizer has only {len(tokenizer)} ids"
            )


def response_ids(
    value: Any,
    question: Any,
    prompt: str,
    text: LiteralText,
    settings: SourceSettings,
    stops: frozenset[int],
) -> list[int]:
    """A given response as token ids without a stop token before the last one; text also ends with a stop token.

    Token ids are taken as they are. Text is rendered as in OpenRLHF's SFT data set (`preprocess_data` of
    openrlhf/datasets/sft_dataset.py): with the chat template, up to its own end of the turn; or unchanged, followed by
    EOS. The space that OpenRLHF puts before EOS is left out, because models do not write it. Prompt and response are
    tokenized together, as in OpenRLHF. If that changes the prompt's own tokens, they are tokenized separately.

    Args:
        value: a text, messages or a list of ids.
        question: the value that the prompt was rendered from.
        prompt: its text, as `render_prompt` returns it.
        text: of the tokenizer with the template.
        settings: how to render.
        stops: see `stop_token_ids`.

    Raises:
        InputError: the value is none of these, or empty; the tokenizer does not have an id; tokens follow the first
            stop token; or the prompt is token ids and the response is not.
        ResponseChanged: the template changes the text.
    """
    if is_token_ids(value):
        check_ids(value, text.tokenizer)
        ids = value
    elif is_token_ids(question):
        raise InputError("the prompt is a list of token ids, so the response has to be one too")
    elif settings.apply_chat_template and value:
        ids = _turn_ids(value, question, prompt, text, stops)
    else:
        ids = _text_ids(value, prompt, text)
    for position, token_id in enumerate(ids[:-1]):
        if token_id in stops:
            name = text.tokenizer.convert_ids_to_tokens(token_id)
            raise InputError(
                f"{name} is token {position} of {len(ids)}, and a response ends with its first stop token"
            )
    return ids


def _turn_ids(value: Any, question: Any, prompt: str, text: LiteralText, stops: frozenset[int]) -> list[int]:
    """The assistant's turn as the template writes it, up to the first stop token after the given response."""
    turns = messages(value, "assistant")
    whole = _templated(messages(question, "user") + turns, text)
    if not whole.startswith(prompt):
        raise InputError("the chat template changes the prompt when a response follows: give token ids")
    rendered, end = whole[len(prompt) :], 0
    for turn in turns:
        content = str(text.hide(turn.get("content", ""))).rstrip()
        if not content:
            raise InputError(f"{value!r:.80} is no response")
        start = rendered.find(content, end)
        if start < 0:
            lost, left = text.show(content), text.show(rendered)
            raise ResponseChanged(f"the chat template changes the response: {lost!r:.80} is not in {left!r:.120}")
        end = start + len(content)
    ids = _ids_behind(prompt, rendered, text)
    places = [position for position, token_id in enumerate(ids) if token_id in stops]
    inside = sum(token_id in stops for token_id in _ids_behind(prompt, rendered[:end], text))
    return ids[: places[inside] + 1] if inside < len(places) else _ended(rendered, prompt, text)


def _text_ids(value: Any, prompt: str, text: LiteralText) -> list[int]:
    """The token ids of a text, followed by EOS. The text may already end with EOS."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{value!r:.80} is no response")
    return _ended(str(text.hide(value.rstrip("\n").removesuffix(str(text.tokenizer.eos_token)))), prompt, text)


def _ended(response: str, prompt: str, text: LiteralText) -> list[int]:
    """The token ids of a response, followed by EOS."""
    if text.tokenizer.eos_token is None:
        raise InputError("the tokenizer has no EOS token, which ends a response: give token ids")
    ids = _ids_behind(prompt, response.rstrip("\n").removesuffix(str(text.tokenizer.eos_token)), text)
    return [*ids, text.tokenizer.eos_token_id]


def _ids_behind(prompt: str, response: str, text: LiteralText) -> list[int]:
    """The token ids of a text after a prompt, tokenized together unless that changes the prompt's own token ids."""
    alone, both = text.token_ids(prompt), text.token_ids(prompt + response)
    return both[len(alone) :] if both[: len(alone)] == alone else text.token_ids(response)
