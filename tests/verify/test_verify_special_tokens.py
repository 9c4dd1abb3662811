"""The special tokens at the end of a response, of the families that are published, and of a tokenizer's files."""

# ruff: noqa: E501

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openrlhf_cft.verify.special_tokens import special_tokens, without_special_tokens

FAMILIES = [
    "<|im_end|>", "<|endoftext|>", "</s>", "<eos>", "<end_of_turn>", "<|eot_id|>", "<|end_of_text|>", "<|end|>",
    "<｜end▁of▁sentence｜>", "<|END_OF_TURN_TOKEN|>", "<extra_id_1>", "<seed:eos>", "[EOS]", "[|endofturn|]", "<|return|>",
    "<|role_end|>", "<pad>", "[PAD]", "<|reserved_special_token_0|>", "<unused0>", "[e~[", "<|user|>", "<SPECIAL_12>",
    "<EOT>", "<turn|>", "<eod>",
]  # fmt: skip


@pytest.mark.parametrize("token", FAMILIES)
def test_families(token: str) -> None:
    assert without_special_tokens(f"#### 18{token}") == "#### 18"
    assert without_special_tokens(f"#### 18 {token}\n{token}{token}") == "#### 18"
    assert without_special_tokens(f"{token} is said. 18") == f"{token} is said. 18", "only at the end"


@pytest.mark.parametrize(
    "text", ["", "18", " 18 \n", "x < 3", "a <b c> d", "[0, 1]", r"\boxed{(2,3]}", "5 > 3", "[A]"]
)
def test_other_text_stays(text: str) -> None:
    assert without_special_tokens(text) == text


def test_of_a_known_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"added_tokens": [{"content": "<stop>", "special": True}, {"content": "<b>", "special": False}]})
    )
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {"eos_token": {"content": "~end~"}, "added_tokens_decoder": {"7": {"content": "@@", "special": True}}}
        )
    )
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": "~pad~", "unk_token": None}))
    known = special_tokens(tmp_path)
    assert known == {"<stop>", "~end~", "@@", "~pad~"}
    assert without_special_tokens("18~end~~pad~ ~pad~", known) == "18"
    assert without_special_tokens("a <b>", known) == "a <b>", "no special token of this tokenizer"
    assert special_tokens(tmp_path / "missing") == frozenset()
