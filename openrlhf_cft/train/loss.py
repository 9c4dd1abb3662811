"""The CFT loss of one optimizer step, and the figures that it measures for the logs.

Eq. 8 of arXiv 2510.10974: the negative log-likelihood of critical tokens only. Here a token has any weight w >= 0, and
the loss is sum(w * nll) / sum(w) over the whole optimizer step and all ranks (0/1 weights give the paper's mean).
The stock `fit` supplies that denominator (`openrlhf/utils/loss_utils.py`), and stock `SFTLoss` divides by it even when
it is zero. Here a step whose weights sum to zero contributes zero and a zero gradient, never NaN.

With `dft` the loss is sum(w * p * nll) / sum(w), where p is the token's probability, which is not differentiated
(Dynamic Fine-Tuning, arXiv 2508.05629).
"""

from __future__ import annotations

import torch
from openrlhf.models import SFTLoss

from openrlhf_cft.train import mask_bits


class Meter:
    """Sums over this rank's micro-batches since the last `take`. They stay on the device: reading one waits for it."""

    NAMES = (
        "weighted_nll",  # sum of w * nll
        "weight",  # sum of w
        "trained",  # tokens with w > 0
        "response",  # response tokens
        # Only in evaluation, because training has logits at loss positions only:
        "other_nll",  # of response tokens with w = 0
        "other_entropy",  # nats
        "trained_entropy",  # of tokens with w > 0
        "compared",  # response tokens with w = 0
    )

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}

    def add_loss(self, log_probs: torch.Tensor, loss_mask: torch.Tensor) -> None:
        """Add one micro-batch; both (B, L - 1)."""
        self._add("weighted_nll", -log_probs.detach() * loss_mask)
        self._add("weight", loss_mask)
        self._add("trained", loss_mask != 0)

    def add_flags(self, attention_mask: torch.Tensor) -> None:
        """Add the response tokens of one micro-batch of flags, (B, L)."""
        self._add("response", mask_bits.response(attention_mask))

    def add_evaluated(self, attention_mask: torch.Tensor, log_probs: torch.Tensor, entropy: torch.Tensor) -> None:
        """Add the figures of critical and of other response tokens, from one micro-batch of an evaluation.

        Args:
            attention_mask: (B, L) flags.
            log_probs, entropy: (B, L - 1) float32, at all flagged positions.
        """
        trained = mask_bits.loss(attention_mask)[:, :-1]
        other = mask_bits.response(attention_mask)[:, :-1] & ~trained
        self._add("other_nll", torch.where(other, -log_probs, 0))
        self._add("other_entropy", torch.where(other, entropy, 0))
        self._add("trained_entropy", torch.where(trained, entropy, 0))
        self._add("compared", other)

    def _add(self, name: str, values: torch.Tensor) -> None:
        total = values.detach().sum(dtype=torch.float64)
        self._sums[name] = self._sums[name] + total if name in self._sums else total

    def take(self) -> torch.Tensor:
        """Return the sums in the order of `NAMES`, (8,) float64, and start again from zero."""
        device = next((total.device for total in self._sums.values()), torch.device("cpu"))
        zero = torch.zeros((), dtype=torch.float64, device=device)
        sums = torch.stack([self._sums.get(name, zero) for name in self.NAMES])
        self._sums = {}
        return sums


def critical_logs(sums: dict[str, float]) -> dict[str, float]:
    """The figures to log, from sums over all ranks.

    A ratio without a denominator is left out: it was not measured, which is not the same as zero.
    """
    logs = {"critical_tokens": sums["trained"]}
    if sums["response"] > 0:
        logs["critical_share"] = sums["trained"] / sums["response"]
    if sums["weight"] > 0:
        logs["critical_loss"] = sums["weighted_nll"] / sums["weight"]
    return logs


def evaluation_logs(sums: dict[str, float]) -> dict[str, float]:
    """The figures of an evaluation to log, from sums over all ranks: means over tokens, entropies in nats."""
    logs = critical_logs(sums)
    logs.pop("critical_tokens")  # the stock sampler repeats rows to fill the last batch, so only ratios are logged
    if sums["trained"] > 0:
        logs["critical_entropy"] = sums["trained_entropy"] / sums["trained"]
    if sums["compared"] > 0:
        logs["other_loss"] = sums["other_nll"] / sums["compared"]
        logs["other_entropy"] = sums["other_entropy"] / sums["compared"]
    return logs


class CriticalTokenLoss(SFTLoss):
    """`openrlhf.models.SFTLoss` that is zero if all weights are zero, and fills its `meter`."""

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
            batch_num_tokens: sum of the weights of the step over all ranks, divided by gradient accumulation; None (in
                evaluation) for the sum of the weights of this batch.

        Returns:
            Scalar, connected to the graph.
        """
        self.meter.add_loss(per_token_logps, loss_mask)
        total = torch.as_tensor(loss_mask.sum() if batch_num_tokens is None else batch_num_tokens)
        total = torch.where(total > 0, total, torch.ones_like(total))  # the numerator is zero then
        # Evaluation, which gives no denominator, always uses the nll, so that its figures can be compared.
        if self.kind == "dft" and batch_num_tokens is not None:
            per_token_logps = per_token_logps * per_token_logps.detach().exp()
        return super().forward(
            per_token_logps,
            loss_mask,
            dp_size=dp_size,
            batch_num_tokens=total,
            global_batch_size=global_batch_size,
        )
