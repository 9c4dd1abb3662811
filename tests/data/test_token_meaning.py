"""Token ids of one model for another of its family: the same vocabulary with other roles."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from chat_families import CHAT
from tokenizer_families import FAMILIES

from openrlhf_cft.data.records import tokenizer_fingerprint
from openrlhf_cft.data.token_meaning import differing_roles
from openrlhf_cft.data.tokenizer import means_the_same


def changed(tokenizer: Any, **roles: str) -> Any:
    other = copy.deepcopy(tokenizer)
    for role, token in roles.items():
        setattr(other, role, token)
    return other


@pytest.mark.parametrize(
    ("roles", "differences"),
    [
        ({}, []),
        ({"eos_token": "<|im_end|>"}, ["EOS was <|im_end|> and is <|endoftext|>", "<|im_end|> was a special token"]),
        ({"pad_token": "<|im_start|>"}, ["<|im_start|> was a special token"]),
        (
            {"eos_token": "<|im_end|>", "pad_token": "<|im_start|>"},
            [
                "EOS was <|im_end|> and is <|endoftext|>",
                "<|im_start|> was a special token",
                "<|im_end|> was a special token",
                "<|endoftext|> was no special token",
            ],
        ),
    ],
)
def test_an_instruct_model_and_its_base(roles: dict[str, str], differences: list[str]) -> None:
    base = CHAT["qwen"]()
    found = differing_roles(tokenizer_fingerprint(changed(base, **roles)), base)
    assert found == differences
    there = differing_roles(tokenizer_fingerprint(base), changed(base, **roles))
    assert there is not None and len(there) == len(differences)


def test_another_vocabulary_means_something_else() -> None:
    base = CHAT["qwen"]()
    larger = CHAT["qwen"]()
    larger.add_tokens(["<think>"])
    others = [larger, CHAT["llama3"](), FAMILIES["unigram"]()]
    assert [differing_roles(tokenizer_fingerprint(other), base) for other in others] == [None] * 3
    assert differing_roles("0123456789abcdef", base) is None


def test_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    base = CHAT["qwen"]()
    assert means_the_same(None, base, "rows") and means_the_same(tokenizer_fingerprint(base), base, "rows")
    assert not caplog.messages
    assert means_the_same(tokenizer_fingerprint(changed(base, eos_token="<|im_end|>")), base, "rows")
    assert "rows: its token ids mean the same to this tokenizer; EOS was <|im_end|> and is" in caplog.text
    assert not means_the_same("0123456789abcdef", base, "rows")
