"""How far the gradient of a step is from that with logits everywhere, for `bench_train.py`."""

from __future__ import annotations

from typing import Any

import torch

from openrlhf_cft.data import records
from openrlhf_cft.train.actor import CriticalTokenActor
from openrlhf_cft.train.dataset import encode_row
from openrlhf_cft.train.loss import CriticalTokenLoss


def gradient_errors(model: str, rows: dict[float, list[dict[str, Any]]], length: int) -> dict[float, dict[str, float]]:
    """Relative errors of the gradient as one vector, by share of critical tokens.

    CFT's in float32 against the same step with logits everywhere ("dense"), and both against the dense one in float64.
    Two rows of the batch are enough to tell, and dense float32 logits of all of them are too much for a GPU.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    actor = CriticalTokenActor(model, attn_implementation="sdpa").to(device)
    found = {}
    for share, batch in rows.items():
        encoded = [
            encode_row(row[records.PROMPT_IDS], row[records.RESPONSE_IDS], row[records.MASK], length)
            for row in batch[:2]
        ]
        tensors = [torch.cat(column).to(device) for column in zip(*encoded, strict=True)]
        exact = gradient(actor.double(), *tensors, dense=True)
        dense = gradient(actor.float(), *tensors, dense=True)
        sparse = gradient(actor, *tensors, dense=False)
        found[share] = {
            "gradient_rel_error": relative_error(sparse, dense),
            "gradient_float64_error": relative_error(sparse, exact),
            "gradient_float64_error_dense": relative_error(dense, exact),
        }
    return found


def gradient(
    actor: CriticalTokenActor, ids: torch.Tensor, flags: torch.Tensor, mask: torch.Tensor, *, dense: bool
) -> list[torch.Tensor]:
    """Of the critical token loss, by parameter."""
    actor.dense_logits = dense
    actor.zero_grad()
    log_probs = actor(ids, attention_mask=flags, return_logprobs=True)
    CriticalTokenLoss()(log_probs, mask[:, :-1].to(log_probs.dtype)).backward()
    return [parameter.grad.clone() for parameter in actor.parameters() if parameter.grad is not None]


def relative_error(gradients: list[torch.Tensor], reference: list[torch.Tensor]) -> float:
    """Norm of the difference over the norm of the reference."""
    errors = [(one.double() - other.double()).square().sum() for one, other in zip(gradients, reference, strict=True)]
    return float((sum(errors) / sum(other.double().square().sum() for other in reference)).sqrt())
