"""Logits at selected positions only, their entropy, and which models give results that later tokens do not change.

    selected = SelectedLogits(model)
    with selected.at(positions_N):
        logits_1NV = model(ids_BL).logits

Training and scoring use this module, so nothing here needs vLLM, Ray or DeepSpeed.

Axes: B batch, L padded length, N selected positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from openrlhf_cft.errors import InputError

SLICE = 512  # rows of logits that are copied at a time


class SelectedLogits:
    """A hook before a model's output embeddings, which then get the hidden states of selected positions only.

    Caps and scales after the output embeddings work on each position separately, so they still apply.

    Raises:
        InputError: the model has no output embeddings.
    """

    def __init__(self, model: Any) -> None:
        self._name = type(model).__name__
        self._positions_N: torch.Tensor | None = None  # during `at`
        self._shape: tuple[int, ...] | None = None  # of the hidden states without H, if it is checked
        self._use: Callable[[torch.Tensor], None] | None = None  # instead of logits
        head = model.get_output_embeddings()  # reached through PeftModel too
        if head is None:
            raise InputError(f"{self._name} has no output embeddings, in front of which logits are selected")
        self._hook = head.register_forward_pre_hook(self._select, with_kwargs=True)

    def remove(self) -> None:
        """Leave the model as it was."""
        self._hook.remove()

    @contextmanager
    def at(
        self,
        positions_N: torch.Tensor,
        shape: tuple[int, ...] | None = None,
        use: Callable[[torch.Tensor], None] | None = None,
    ) -> Iterator[None]:
        """Forwards inside this context have logits (1, N, V), at these positions of the flattened batch.

        Args:
            positions_N: (N,) int64, indices into hidden states (B, L, H) or (1, total, H), flattened but for H.
            shape: the shape that the hidden states must have, without H; None: any shape.
            use: gets the hidden states (N, H) before the output embeddings, which then see none: logits are (1, 0, V).

        Raises:
            InputError: in the forward, if the hidden states have another shape.
        """
        self._positions_N, self._shape, self._use = positions_N, shape, use
        try:
            yield
        finally:
            self._positions_N = self._shape = self._use = None

    def _select(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The hook: replaces the hidden states by the selected ones, (1, N, H), or by none if `use` gets them."""
        if self._positions_N is None:
            return None
        name = None if args else next(iter(kwargs))
        hidden_1NH = self._gather(args[0] if name is None else kwargs[name])
        if self._use is not None:
            self._use(hidden_1NH[0])
            hidden_1NH = hidden_1NH[:, :0]
        return ((hidden_1NH, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: hidden_1NH})

    def _gather(self, hidden: torch.Tensor) -> torch.Tensor:
        assert self._positions_N is not None
        if self._shape is not None and tuple(hidden.shape[:-1]) != self._shape:
            raise InputError(
                f"the output embeddings of {self._name} get hidden states of shape {tuple(hidden.shape)} for a batch "
                f"of {self._shape}: use --cft.dense_logits with this model"
            )
        return hidden.reshape(-1, hidden.shape[-1]).index_select(0, self._positions_N)[None]


def log_probs(logits: torch.Tensor) -> torch.Tensor:
    """Natural log-probabilities over the last axis, at least in float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def entropy(logits_NV: torch.Tensor, rows_at_once: int = SLICE) -> torch.Tensor:
    """Entropy in nats of each row of logits, (N, V) to (N,), in slices: no other tensor of size (N, V) is made.

    A token that cannot occur (its logit is minus infinity) adds nothing.
    """
    parts = [torch.special.entr(log_probs(part).exp()).sum(-1) for part in logits_NV.split(rows_at_once)]
    return torch.cat(parts)


def nll(logits_NV: torch.Tensor, targets_N: torch.Tensor, rows_at_once: int = SLICE) -> torch.Tensor:
    """-log probability in nats of one token for each row of logits, (N, V) and (N,) to (N,), in slices."""
    slices = zip(logits_NV.split(rows_at_once), targets_N.split(rows_at_once), strict=True)
    return torch.cat([-log_probs(part).gather(-1, targets[:, None]).squeeze(-1) for part, targets in slices])


def later_tokens_change_nothing(config: Any) -> bool:
    """Whether a causal model's result at a position is independent of what follows it, in its row or in the batch.

    It is not if the balance of a mixture of experts is counted over all tokens, if the frequencies of the rotary
    embedding depend on the length of the sequence, or if attention looks ahead.
    """
    config = config.get_text_config()
    looks_ahead = getattr(config, "use_bidirectional_attention", None) or getattr(config, "is_causal", None) is False
    if getattr(config, "output_router_logits", False) or looks_ahead:
        return False
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]  # one for all layers, or by kind
    return not any(kind.get("rope_type", kind.get("type")) in ("dynamic", "longrope", "su") for kind in kinds)
