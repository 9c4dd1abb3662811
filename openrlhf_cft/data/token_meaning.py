"""Whether a data set's token ids mean the same to another tokenizer: same vocabulary, whatever roles its tokens have.

    differing_roles(metadata["tokenizer_fingerprint"], tokenizer)   # [] or ["EOS was <|im_end|> and is </s>"]

A base model and its instruct model share a vocabulary and differ in EOS and pad. A fingerprint is a hash of vocabulary
and roles. So this module tries the few roles that a model family has, until this vocabulary gives the fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from openrlhf_cft.data.records import fingerprint_state, tokenizer_fingerprint

MOST_SPECIAL = 300  # special tokens that are tried in a role; Llama 3 has 256
ROLES = ("eos_token_id", "pad_token_id", "bos_token_id", "unk_token_id")


def differing_roles(fingerprint: str, tokenizer: Any) -> list[str] | None:
    """How special roles differ between the tokenizer of a fingerprint and this one, if both have the same vocabulary.

    Args:
        fingerprint: see `records.tokenizer_fingerprint`.
        tokenizer: of the `transformers` API.

    Returns:
        A phrase for each difference, empty if there is none. None if no roles give this fingerprint: the vocabulary is
        a different one, or the roles are further apart.
    """
    if fingerprint == tokenizer_fingerprint(tokenizer):
        return []
    text = json.dumps(fingerprint_state(tokenizer), ensure_ascii=True)
    vocabulary = hashlib.sha256(text[: text.rindex(', "special": ')].encode())
    for special, eos in _roles(tokenizer):
        digest = vocabulary.copy()
        digest.update(f', "special": {json.dumps(sorted(special))}, "eos": {json.dumps(eos)}}}'.encode())
        if digest.hexdigest()[:16] == fingerprint:
            return _named(tokenizer, special, eos)
    return None


def _roles(tokenizer: Any) -> Iterator[tuple[set[int], int | None]]:
    """Sets of special tokens with an EOS; those that drop the fewest of this tokenizer's own come first."""
    own = set(tokenizer.all_special_ids)
    mine = [token for token in (getattr(tokenizer, role) for role in ROLES) if token is not None]
    added = [token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special]
    tokens = sorted({*own, *added})[-MOST_SPECIAL:]
    for gone in (subset for size in range(3) for subset in combinations(sorted(set(mine)), size)):
        for eos in [*tokens, None]:
            for other in [None, *tokens]:
                yield {*(own - set(gone)), *({eos, other} - {None})}, eos


def _named(tokenizer: Any, special: set[int], eos: int | None) -> list[str]:
    """The differences in words."""

    def name(token: int | None) -> str:
        return "none" if token is None else str(tokenizer.convert_ids_to_tokens(token))

    parts = [f"EOS was {name(eos)} and is {name(tokenizer.eos_token_id)}"] if eos != tokenizer.eos_token_id else []
    own = set(tokenizer.all_special_ids)
    parts += [f"{name(token)} was a special token" for token in sorted(special - own)]
    return parts + [f"{name(token)} was no special token" for token in sorted(own - special)]
