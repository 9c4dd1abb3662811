"""The scale or the soft cap that a causal model applies to its logits after the output embeddings.

Cohere, Granite, Falcon-H1 and HyperCLOVA X scale their logits, and Gemma caps them. No list of names decides. The
model's own forward runs once with output embeddings that return known logits, and its result shows what was done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

PROBE = 60.0  # the probe's logits lie between minus this and this
CAPS = ("final_logit_softcapping", "logits_soft_cap")  # names of the cap in a configuration
NO_FORWARD = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class LogitTransform:
    """y = scale * x, or y = scale * cap * tanh(x / cap)."""

    scale: float = 1.0
    cap: float | None = None

    def apply_(self, logits: torch.Tensor) -> torch.Tensor:
        """Transform logits of any shape in their place."""
        if self.cap is not None:
            logits.div_(self.cap).tanh_().mul_(self.cap)
        return logits if self.scale == 1 else logits.mul_(self.scale)

    def slope(self, transformed: torch.Tensor) -> torch.Tensor | float:
        """dy/dx from y: the shape of y with a cap, else one number."""
        if self.cap is None:
            return self.scale
        return (transformed / (self.scale * self.cap)).square_().neg_().add_(1).mul_(self.scale)


def probe_transform(model: Any) -> LogitTransform | None:
    """The transform of a transformers causal model; None where it is another one or cannot be seen.

    No weight is read, so the parameters may be spread over ranks (ZeRO 3).
    """
    words = getattr(model.get_output_embeddings(), "out_features", None)
    if words is None:
        return None
    logits = torch.linspace(-PROBE, PROBE, words, device=model.device)[None, None]
    try:
        with _stubs(model, logits), torch.no_grad():
            result = model.forward(input_ids=torch.zeros((1, 1), dtype=torch.int64, device=model.device)).logits
    except NO_FORWARD:  # its forward needs more of its body than a last hidden state
        return None
    if result.shape != logits.shape:
        return None
    config = model.config.get_text_config()
    caps = [float(cap) for cap in (getattr(config, name, None) for name in CAPS) if cap]
    scale = float(result[0, 0, -1]) / PROBE
    for transform in (LogitTransform(), LogitTransform(scale), *(LogitTransform(cap=cap) for cap in caps)):
        if torch.allclose(result.float(), transform.apply_(logits.clone()), rtol=1e-5, atol=1e-4):
            return transform
    return None


@contextmanager
def _stubs(model: Any, logits: torch.Tensor) -> Iterator[None]:
    """Let the body of a model return one empty hidden state, and its output embeddings these logits."""
    from transformers.modeling_outputs import BaseModelOutput

    class BodyOutput(BaseModelOutput):
        """A last hidden state, and None for all else that a causal model passes on: caches, cross attentions."""

        def __getattr__(self, name: str) -> None:
            if name.startswith("_"):
                raise AttributeError(name)

    head = model.get_output_embeddings()
    body = model.base_model if model.base_model is not model else model.get_decoder()  # Llama 4 names no base model
    hidden = torch.zeros((1, 1, head.in_features), device=logits.device)
    before = [module.__dict__.get("forward") for module in (body, head)]  # other libraries replace it too
    body.forward = lambda *_, **__: BodyOutput(last_hidden_state=hidden)
    head.forward = lambda *_, **__: logits.clone()
    try:
        yield
    finally:
        for module, forward in zip((body, head), before, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward
