"""The CFT loss of one optimizer step, and what it measures on the way.

Eq. 8 of arXiv 2510.10974: the negative log-likelihood of critical tokens only. Here a token has any weight w >= 0, and
the loss is sum(w * nll) / sum(w) over the whole optimizer step and all ranks (0/1 weights give the paper's mean).
The stock `fit` supplies that denominator (`openrlhf/utils/loss_utils.py`), and stock `SFTLoss` divides by it even when
it is zero. Here a step whose weights sum to zero contributes zero and a zero gradient, never NaN.

With `dft` it is sum(w * p * nll) / sum(w), p the token's probability, not differentiated (Dynamic Fine-Tuning,
arXiv 2508.05629).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from openrlhf.models import SFTLoss

from openrlhf_cft.train import token_flags


@dataclass
class Meter:
    """Sums over the micro-batches of this rank since the last `take`."""

    weighted_nll: float = 0.0  # sum of w * nll
    weight: float = 0.0  # sum of w
    trained: float = 0.0  # tokens with w > 0
    response: float = 0.0  # response tokens
    # In evaluation only, which alone has logits beside the loss positions:
    other_nll: float = 0.0  # of response tokens with w = 0
    other_entropy: float = 0.0  # nats
    trained_entropy: float = 0.0  # of tokens with w > 0
    compared: float = 0.0  # response tokens with w = 0

    def add_loss(self, log_probs: torch.Tensor, loss_mask: torch.Tensor) -> None:
        """Add one micro-batch; both (B, L - 1)."""
        self.weighted_nll -= (log_probs.detach() * loss_mask).sum().item()
        self.weight += loss_mask.sum().item()
        self.trained += (loss_mask != 0).sum().item()

    def add_flags(self, attention_mask: torch.Tensor) -> None:
        """Add the response tokens of one micro-batch of flags, (B, L)."""
        self.response += token_flags.response(attention_mask).sum().item()

    def add_evaluated(self, attention_mask: torch.Tensor, log_probs: torch.Tensor, entropy: torch.Tensor) -> None:
        """Add what an evaluated micro-batch says of critical and of other response tokens.

        Args:
            attention_mask: (B, L) flags.
            log_probs, entropy: (B, L - 1) float32, at all flagged positions.
        """
        trained = token_flags.loss(attention_mask)[:, :-1]
        other = token_flags.response(attention_mask)[:, :-1] & ~trained
        self.other_nll -= log_probs[other].sum().item()
        self.other_entropy += entropy[other].sum().item()
        self.trained_entropy += entropy[trained].sum().item()
        self.compared += other.sum().item()

    def take(self) -> dict[str, float]:
        """The sums by name, and start again from zero."""
        sums = dict(vars(self))
        vars(self).update(vars(Meter()))
        return sums


def critical_logs(sums: dict[str, float]) -> dict[str, float]:
    """Sums over all ranks to what is logged.

    A ratio without a denominator is left out: unmeasured is not zero.
    """
    logs = {"critical_tokens": sums["trained"]}
    if sums["response"] > 0:
        logs["critical_share"] = sums["trained"] / sums["response"]
    if sums["weight"] > 0:
        logs["critical_loss"] = sums["weighted_nll"] / sums["weight"]
    return logs


def evaluation_logs(sums: dict[str, float]) -> dict[str, float]:
    """Sums of an evaluation over all ranks to what is logged: means over tokens, entropies in nats."""
    logs = critical_logs(sums)
    logs.pop("critical_tokens")  # the stock sampler repeats rows to fill the last batch: ratios only
    if sums["trained"] > 0:
        logs["critical_entropy"] = sums["trained_entropy"] / sums["trained"]
    if sums["compared"] > 0:
        logs["other_loss"] = sums["other_nll"] / sums["compared"]
        logs["other_entropy"] = sums["other_entropy"] / sums["compared"]
    return logs


class CriticalTokenLoss(SFTLoss):
    """`openrlhf.models.SFTLoss` that is zero where the weights are, and measures as it goes."""

    def __init__(self, kind: str = "nll") -> None:
        super().__init__()
        self.kind = kind  # of `arguments.LOSSES`
        self.meter = Meter()

    def forward(
        self,
        per_token_logps: torch.Tensor,
        loss_mask: torch.Tensor,
        dp_size: int = 1,
        batch_num_tokens: torch.Tensor | float | None = None,
        global_batch_size: torch.Tensor | float | None = None,
    ) -> torch.Tensor:
        """The share of one micro-batch in the step's loss, times `dp_size` and gradient accumulation as in stock.

        Args:
            per_token_logps: (B, L - 1) float32.
            loss_mask: (B, L - 1) float32 weights.
            batch_num_tokens: sum of the weights of the step over all ranks, divided by gradient accumulation; without
                it (evaluation) the weights of this batch.

        Returns:
            Scalar, connected to the graph.
        """
        self.meter.add_loss(per_token_logps, loss_mask)
        total = torch.as_tensor(loss_mask.sum() if batch_num_tokens is None else batch_num_tokens)
        total = torch.where(total > 0, total, torch.ones_like(total))  # the numerator is zero then
        # Evaluation, which gives no denominator, is by the nll whatever is trained: its figures compare.
        if self.kind == "dft" and batch_num_tokens is not None:
            per_token_logps = per_token_logps * per_token_logps.detach().exp()
        return super().forward(
            per_token_logps,
            loss_mask,
            dp_size=dp_size,
            batch_num_tokens=total,
            global_batch_size=global_batch_size,
        )
