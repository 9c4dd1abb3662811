"""The attention mask of a CFT batch carries flags as bits, because the stock `fit` gives the model nothing else.

    bit 0 (REAL)      a real token, not padding: the usual meaning of the mask
    bit 1 (LOSS)      the logits at this position carry loss: the loss mask there is not zero
    bit 2 (RESPONSE)  the logits at this position predict a response token

Bits 1 and 2 are shifted as the loss mask is: the token at p is flagged at p - 1 (`data.loss_mask`).
`CriticalTokenDataset` writes the flags, `CriticalTokenActor` and the meter read them, and no model ever sees them.
A mask of plain zeros and ones has no flags, and keeps its usual meaning.
"""

from __future__ import annotations

import torch

REAL = 1
LOSS = 2
RESPONSE = 4


def encode(prompt_length: int, loss_mask_L: torch.Tensor) -> torch.Tensor:
    """The flags of one sequence without padding.

    Args:
        prompt_length: P, at least 1; may exceed L if the sequence was cut inside the prompt.
        loss_mask_L: (L,) float, shifted, the last entry 0.

    Returns:
        (L,) int64.
    """
    flags_L = torch.full_like(loss_mask_L, REAL, dtype=torch.long)
    flags_L[loss_mask_L != 0] |= LOSS
    flags_L[prompt_length - 1 : -1] |= RESPONSE
    return flags_L


def has_flags(attention_mask: torch.Tensor) -> bool:
    """Whether an attention mask, of any shape, carries more than zeros and ones."""
    return not attention_mask.is_floating_point() and bool((attention_mask > REAL).any())


def real(attention_mask: torch.Tensor) -> torch.Tensor:
    """The plain 0/1 attention mask, same shape and dtype."""
    return attention_mask & REAL


def loss(attention_mask: torch.Tensor) -> torch.Tensor:
    """Where the loss is, same shape, bool."""
    return (attention_mask & LOSS) != 0


def response(attention_mask: torch.Tensor) -> torch.Tensor:
    """Where a response token is predicted, same shape, bool."""
    return (attention_mask & RESPONSE) != 0
