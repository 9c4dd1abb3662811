"""Tokenizers with the special tokens and the chat template of known model families; none has to be downloaded.

tokenizer = CHAT["gemma"]()     # BOS by itself, <end_of_turn> behind each turn, no system role, EOS is another token
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenizer_families import byte_level, metaspace

CHATML = """{% if messages[0].role != 'system' %}<|im_start|>system
You are helpful.<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
LLAMA3 = """{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""
GEMMA = """{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '
' + m.content | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model
' }}{% endif %}"""  # noqa: E501
# As DeepSeek-R1's: what was thought is not repeated in a turn of the past, and no newline ends a turn.
R1 = """{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% else %}<|Assistant|>{{ m.content.split('</think>')[-1] }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|Assistant|>{% endif %}"""  # noqa: E501
MISTRAL = """{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"""  # noqa: E501


def qwen() -> Any:
    """A base model of Qwen's: EOS is <|endoftext|>, and the template ends a turn with <|im_end|>."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return _with(byte_level(), special, CHATML, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def llama3() -> Any:
    """Llama 3: BOS by the post-processor and by the template, contents trimmed."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    tokenizer = _with(byte_level(), special, LLAMA3, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")
    return _with_bos(tokenizer)


def gemma() -> Any:
    """Gemma: SentencePiece, contents trimmed, strict roles."""
    special = ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
    return _with_bos(_with(metaspace(), special, GEMMA, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"))


def deepseek_r1() -> Any:
    """A template that leaves the reasoning out."""
    special = ["<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>"]
    return _with(byte_level(), special, R1, bos_token="<|begin|>", eos_token="<|end|>")


def mistral() -> Any:
    """Mistral: EOS ends a turn."""
    return _with(metaspace(), ["<s>", "[INST]", "[/INST]"], MISTRAL, bos_token="<s>", unk_token="<unk>")


def gpt2() -> Any:
    """GPT-2: no template, BOS and EOS are one token."""
    return _with(byte_level(), ["<|endoftext|>"], None, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


CHAT: dict[str, Callable[[], Any]] = {
    "qwen": qwen,
    "llama3": llama3,
    "gemma": gemma,
    "deepseek_r1": deepseek_r1,
    "mistral": mistral,
}


def _with(tokenizer: Any, special: list[str], template: str | None, **roles: str) -> Any:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    inner = tokenizer._tokenizer
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    given = {"pad_token": "<pad>", "eos_token": "</s>", "clean_up_tokenization_spaces": False, **roles}
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **given)
    made.chat_template = template
    return made


def _with_bos(tokenizer: Any) -> Any:
    """The tokenizer puts BOS before a text, as those of Llama 3 and Gemma do."""
    from tokenizers import processors

    bos = tokenizer.bos_token
    pair = [(bos, tokenizer.bos_token_id)]
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=pair)
    return tokenizer
