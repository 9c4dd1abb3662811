"""One training example as text with its trained tokens marked, for a look at it before a long run."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch

from openrlhf_cft.display import visible
from openrlhf_cft.train import mask_bits

PROMPT_TOKENS = 64  # of the prompt only its end is shown
RESPONSE_TOKENS = 512


def mark_trained(tokenizer: Any, input_ids_L: torch.Tensor, flags_L: torch.Tensor, marks: tuple[str, str]) -> str:
    """Decode a sequence with `marks` around each run of trained tokens.

    Args:
        tokenizer: of the `transformers` API.
        input_ids_L: (L,) int64.
        flags_L: (L,) int64, shifted (`mask_bits`): the flag of the token at p stands at p - 1.
        marks: the texts that open and close a run.
    """
    trained = [False, *mask_bits.loss(flags_L)[:-1].tolist()]
    response = [False, *mask_bits.response(flags_L)[:-1].tolist()]
    first = response.index(True) if True in response else len(response)
    begin, end = max(0, first - PROMPT_TOKENS), first + RESPONSE_TOKENS
    pairs = list(zip(input_ids_L.tolist(), trained, strict=True))[begin:end]
    # Whole runs are decoded together, so that a character of several tokens in one run comes out whole.
    decoded = [
        (is_trained, tokenizer.decode([token for token, _ in run])) for is_trained, run in groupby(pairs, _second)
    ]
    runs = [(is_trained, visible(part)) for is_trained, part in decoded]
    text = "".join(f"{marks[0]}{part}{marks[1]}" if is_trained else part for is_trained, part in runs)
    return ("…" if begin > 0 else "") + text + ("…" if end < len(trained) else "")


def _second(pair: tuple[int, bool]) -> bool:
    return pair[1]
