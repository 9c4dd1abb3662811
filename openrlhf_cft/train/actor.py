"""The stock Actor, with logits only where the loss is.

CFT trains a small part of the response tokens, and the logits of all the others are the largest tensor of a training
step and a third of its work. A hook in front of the output embeddings keeps the hidden states at loss positions only.

Invariants:

- Every rank runs every module in every forward, also with nothing selected (N = 0): the output embeddings then see a
  (1, 0, H) tensor, their gradient is zero, and the collectives of ZeRO 2 and 3 stay aligned.
- A mask without flags (`flags`) takes the stock path untouched.

Axes: B batch, L padded length, N selected positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from openrlhf.models import Actor
from torch import nn

from openrlhf_cft.train import flags


class CriticalTokenActor(Actor):
    """`openrlhf.models.Actor` that decodes the flags in the attention mask and computes logits at loss positions.

    The constructor is the stock one.

    Raises:
        ValueError: the model has no output embeddings to select in front of.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._selected: torch.Tensor | None = None  # (N,) indices into the flattened hidden states, during a forward
        head = self.model.get_output_embeddings()  # reached through PeftModel too
        if head is None:
            raise ValueError(f"{type(self.model).__name__} has no output embeddings, which --critical_mask needs")
        head.register_forward_pre_hook(self._select_hidden, with_kwargs=True)

    def _select_hidden(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Hook: hidden states (B, L, H), or (1, total, H) when packed, to those selected, (1, N, H)."""
        if self._selected is None:
            return None
        if args:
            return (self._gather(args[0]), *args[1:]), kwargs
        name = next(iter(kwargs))
        return args, {**kwargs, name: self._gather(kwargs[name])}

    def _gather(self, hidden: torch.Tensor) -> torch.Tensor:
        assert self._selected is not None
        return hidden.reshape(-1, hidden.shape[-1]).index_select(0, self._selected)[None]

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
        """Log-probabilities of the next token where the flags say so, zero elsewhere.

        Args:
            sequences: (B, L) int64.
            attention_mask: (B, L) integer, plain or with flags.
            action_mask, return_entropy, kwargs: as in the stock forward, which also takes every call without flags and
                every one that is not for log-probabilities alone.

        Returns:
            (B, L - 1) float32, with `return_output` a pair with the model's output, whose logits are (1, N, V).
        """
        flagged = attention_mask is not None and flags.has_flags(attention_mask)
        plain = flags.real(attention_mask) if flagged else attention_mask
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
        positions_N = flags.loss(attention_mask).flatten().nonzero().squeeze(1)
        output = self._forward_selected(sequences, plain, positions_N, kwargs)
        log_probs = scatter_log_probs(output["logits"], sequences, positions_N)
        return (log_probs, output) if return_output else log_probs

    def _forward_selected(
        self, sequences: torch.Tensor, plain: torch.Tensor, positions_N: torch.Tensor, kwargs: dict[str, Any]
    ) -> Any:
        """The stock forward up to its logits, float32 and scaled by temperature, at `positions_N` of (B * L,)."""
        self._selected = positions_N
        if self.packing_samples:  # the stock forward drops padding: count real tokens only, as its unpad does
            self._selected = (plain.flatten().cumsum(0) - 1)[positions_N]
        try:
            return super().forward(sequences, attention_mask=plain, return_output=True, **kwargs)
        finally:
            self._selected = None


def scatter_log_probs(logits: torch.Tensor, sequences: torch.Tensor, positions_N: torch.Tensor) -> torch.Tensor:
    """Log-probability of the following token at each selected position, put back in its place.

    Args:
        logits: (1, N, V) float32.
        sequences: (B, L) int64.
        positions_N: (N,) indices into the flattened (B, L).

    Returns:
        (B, L - 1) float32, zero where nothing was selected; connected to the graph also when N is 0.
    """
    labels_N = torch.roll(sequences, shifts=-1, dims=1).flatten()[positions_N]
    # logit - logsumexp keeps no second (N, V) tensor for the backward pass, unlike log_softmax.
    chosen_N = logits[0].gather(-1, labels_N[:, None]).squeeze(-1) - torch.logsumexp(logits[0], dim=-1)
    log_probs = chosen_N.new_zeros(sequences.numel()).index_put((positions_N,), chosen_N)
    return log_probs.view_as(sequences)[:, :-1]
