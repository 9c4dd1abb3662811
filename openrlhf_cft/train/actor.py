"""The stock Actor, with log-probabilities at loss positions only.

CFT trains only a small part of the response tokens. The logits of all others are the largest tensor of a training step
and a third of its work. `SelectedLogits` keeps the hidden states at loss positions only, and `LogProbs` makes
log-probabilities of them without holding their logits. Only for output embeddings that `LogProbs` does not know, the
logits at the selected positions are computed.

Invariants:

- Every rank runs every module in every forward, even with nothing selected (N = 0). `LogProbs` then gets a (0, H)
  tensor, and the gradient of the output embeddings is zero. So the collectives of ZeRO 2 and 3 stay aligned.
- A mask without flags (`mask_bits`) takes the unchanged stock path.
- In a causal model, later tokens do not change earlier results. So nothing is computed after a row's last loss
  position.

Axes: B batch, L padded length, N selected positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from openrlhf.models import Actor

from openrlhf_cft.engine.logits import SelectedLogits, entropy, later_tokens_change_nothing
from openrlhf_cft.train import mask_bits
from openrlhf_cft.train.log_probs import attach_log_probs


class CriticalTokenActor(Actor):
    """`openrlhf.models.Actor` that decodes the flags in the attention mask and computes logits at flagged positions.

    In training these are the loss positions. In evaluation they are all positions that predict a response token, and
    `entropy` then holds the entropy there, in nats, (B, L - 1) float32, zero elsewhere.

    The constructor takes the stock arguments, and `dense_logits` (compute logits everywhere).

    Raises:
        InputError: the model has no output embeddings, before which positions are selected.
    """

    def __init__(self, *args: Any, dense_logits: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dense_logits = dense_logits
        self.entropy: torch.Tensor | None = None  # of the last forward in evaluation
        # A recurrent model carries its state from one packed row into the next, so every token affects later rows.
        runs_on = self.packing_samples and getattr(self.model, "_is_stateful", False)
        self._trims = later_tokens_change_nothing(self.model.config) and not runs_on
        self._selected = SelectedLogits(self.model)
        self._log_probs = attach_log_probs(self.model, self.temperature)

    def forward(
        self,
        sequences: torch.Tensor,
        action_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_output: bool = False,
        return_logprobs: bool = False,
        return_entropy: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Log-probabilities of the next token at flagged positions, zero elsewhere.

        Args:
            sequences: (B, L) int64.
            attention_mask: (B, L) integer, plain or with flags.
            action_mask, return_entropy, kwargs: as in the stock forward. A call without flags, or for anything else
                than log-probabilities, goes to the stock forward.

        Returns:
            (B, L - 1) float32. With `return_output`, a pair of these and the model's output, whose logits are
            (1, N, V), or (1, 0, V) where `LogProbs` made the log-probabilities.
        """
        flagged = attention_mask is not None and mask_bits.has_flags(attention_mask)
        plain = mask_bits.real(attention_mask) if flagged else attention_mask
        if not flagged or action_mask is not None or return_entropy or not return_logprobs:
            return super().forward(
                sequences,
                action_mask,
                attention_mask=plain,
                return_output=return_output,
                return_logprobs=return_logprobs,
                return_entropy=return_entropy,
                **kwargs,
            )
        if self.dense_logits:
            return self._dense(sequences, attention_mask, return_output, kwargs)
        wanted_BL = mask_bits.loss(attention_mask)
        if not self.training:
            wanted_BL = wanted_BL | mask_bits.response(attention_mask)
        labels_N = torch.roll(sequences, shifts=-1, dims=1)[wanted_BL]
        output, log_probs_N, entropy_N = self._forward_selected(sequences, plain, wanted_BL, labels_N, kwargs)
        if entropy_N is not None:
            self.entropy = scatter(entropy_N, wanted_BL)
        log_probs = scatter(log_probs_N, wanted_BL)
        return (log_probs, output) if return_output else log_probs

    def _dense(
        self, sequences: torch.Tensor, attention_mask: torch.Tensor, return_output: bool, kwargs: dict[str, Any]
    ) -> Any:
        """The stock forward. The flags only decide where the entropy is kept."""
        log_probs, output = super().forward(
            sequences,
            attention_mask=mask_bits.real(attention_mask),
            return_output=True,
            return_logprobs=True,
            **kwargs,
        )
        if not self.training:
            wanted_BL = mask_bits.loss(attention_mask) | mask_bits.response(attention_mask)
            rows_N = wanted_BL.flatten().nonzero().squeeze(1)
            if self.packing_samples:
                rows_N = (mask_bits.real(attention_mask).flatten().cumsum(0) - 1)[rows_N]
            self.entropy = scatter(entropy(output["logits"].flatten(0, 1)[rows_N]), wanted_BL)
        return (log_probs, output) if return_output else log_probs

    def _forward_selected(
        self,
        sequences: torch.Tensor,
        plain: torch.Tensor,
        wanted_BL: torch.Tensor,
        labels_N: torch.Tensor,
        kwargs: dict[str, Any],
    ) -> tuple[Any, torch.Tensor, torch.Tensor | None]:
        """The output of the stock forward, and log-probabilities and entropies at the wanted positions, (N,) each.

        Entropies are None in training.
        """
        if self._trims:
            kept_BK = up_to_last(wanted_BL)
            length = kept_BK.shape[1]
            sequences, plain, wanted_BL = sequences[:, :length], plain[:, :length], wanted_BL[:, :length]
            if self.packing_samples:  # padded, a shorter row saves nothing, and a batch without padding needs no mask
                plain = plain * kept_BK
        positions_N = wanted_BL.flatten().nonzero().squeeze(1)
        shape = (sequences.shape[0], sequences.shape[1])
        if self.packing_samples:  # the stock forward drops padding: count real tokens only, as its unpad does
            positions_N = (plain.flatten().cumsum(0) - 1)[positions_N]
            shape = (1, int(plain.sum()))
        made: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        make = self._log_probs if self._log_probs is not None and self._log_probs.usable() else None
        if make is not None:
            make.share_parameters()
        use = None if make is None else lambda hidden_NH: made.append(make(hidden_NH, labels_N))
        with self._selected.at(positions_N, shape, use):
            output = super().forward(sequences, attention_mask=plain, return_output=True, **kwargs)
        if made:
            return output, *made[0]
        logits_NV = output["logits"][0]
        return output, chosen_log_probs(logits_NV, labels_N), None if self.training else entropy(logits_NV)


def up_to_last(wanted_BL: torch.Tensor) -> torch.Tensor:
    """For each row, the positions up to its last wanted one, and at least the first position.

    Returns:
        (B, K) bool, where K is the length of the longest row that is left.
    """
    positions_L = torch.arange(wanted_BL.shape[1], device=wanted_BL.device)
    last_B = (positions_L * wanted_BL).amax(dim=1)
    return positions_L[: int(last_B.max()) + 1] <= last_B[:, None]


def scatter(values_N: torch.Tensor, wanted_BL: torch.Tensor) -> torch.Tensor:
    """Put the values of the wanted positions, in their order, back in their places.

    Returns:
        (B, L - 1), zero at all other positions; connected to the graph even if N is 0.
    """
    positions_N = wanted_BL.flatten().nonzero().squeeze(1)
    flat = values_N.new_zeros(wanted_BL.numel()).index_put((positions_N,), values_N)
    return flat.view_as(wanted_BL)[:, :-1]


def chosen_log_probs(logits_NV: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """Log-probability of one token for each row of logits, (N, V) float32 and (N,) int64 to (N,)."""
    # logit - logsumexp keeps no second (N, V) tensor for the backward pass, unlike log_softmax.
    return logits_NV.gather(-1, labels_N[:, None]).squeeze(-1) - torch.logsumexp(logits_NV, dim=-1)
