"""The tokens that end a response: those at which vLLM ends a request, and the end of the chat template's turn.

    stops = stop_token_ids(tokenizer, "runs/model", engine_args={}, chat=True)

vLLM (`ModelConfig.try_get_generation_config`) reads generation_config.json, or config.json without one, and the
tokenizer. The template of some base models, such as Qwen's, ends a turn with another token. That one ends a response
too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from openrlhf_cft.data.model_files import load_config
from openrlhf_cft.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = "a"  # a response that every template keeps as it is


def stop_token_ids(
    tokenizer: PreTrainedTokenizerBase, model: str, engine_args: Mapping[str, Any], chat: bool
) -> frozenset[int]:
    """The token ids at which a response ends.

    Args:
        tokenizer: of the model.
        model: a path or a hub name.
        engine_args: of vLLM; only `generation_config`, `override_generation_config` and `revision` matter.
        chat: whether prompts are rendered by the chat template.

    Raises:
        InputError: there is no stop token, so every response would run out of its budget.
    """
    override = engine_args.get("override_generation_config") or {}
    ids = {*_ids(_configured(model, engine_args)), *_ids(override.get("eos_token_id")), *_ids(tokenizer.eos_token_id)}
    if chat:
        ids.update(_ids(turn_end(tokenizer)))
    if not ids:
        raise InputError(
            f"{model!r} has no stop token: no eos_token_id in generation_config.json or config.json, and no EOS in "
            "the tokenizer; every response would be cut off"
        )
    return frozenset(ids)


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the chat template writes directly after a response; None if it writes anything else.

    Source: the rendering of a turn; no attribute of a tokenizer names this token.
    """
    if not tokenizer.chat_template:
        return None
    turns = [{"role": "user", "content": MARK}, {"role": "assistant", "content": MARK}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except Exception:  # the template refuses even this plain turn, so its end is not known
        return None
    behind = tokenizer(text[text.rindex(MARK) + len(MARK) :], add_special_tokens=False)["input_ids"]
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return behind[0] if behind and behind[0] in special else None


def _configured(model: str, engine_args: Mapping[str, Any]) -> Any:
    """`eos_token_id` of the generation configuration that vLLM reads."""
    from transformers import GenerationConfig

    place = engine_args.get("generation_config", "auto")
    place = model if place in ("auto", "vllm") else place
    revision = engine_args.get("revision")
    try:
        return GenerationConfig.from_pretrained(place, revision=revision or "main").eos_token_id
    except OSError:  # a checkpoint without generation_config.json
        return GenerationConfig.from_model_config(load_config(place, revision=revision)).eos_token_id


def _ids(value: Any) -> list[int]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [int(token_id) for token_id in values if token_id is not None]
