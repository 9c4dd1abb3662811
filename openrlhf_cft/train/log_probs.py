"""Log-probabilities of chosen tokens from hidden states, through the model's output embeddings, block by block.

A step never holds logits of all positions and all words. The forward pass goes through the vocabulary in blocks and
keeps two numbers of each position's softmax: the largest logit, and the sum. The backward pass computes each block's
logits again, and from them the gradient of the block. With blocks of words, the gradient of a block's weights is one
matrix product over all positions, which sums in float32. With blocks of positions, each block would add a gradient of
the size of all weights. Cut Cross-Entropy (arXiv 2411.09009) has the same idea as a GPU kernel; these are plain matrix
products, for any device.

Axes: N positions, H hidden size, V vocabulary, W words of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import deepspeed
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from openrlhf_cft.engine.logit_transform import LogitTransform, probe_transform

BLOCK = 2**22  # logits of a block
FEWEST = 256  # words of a block
# A product with few positions sums over all words of a block one after another. With 6 positions and 49,152 words, the
# gradient's error was 1.4e-5. With 8,192 words it is 5.0e-6, and with logits everywhere 3.1e-6.
MOST = 8192
KEPT = 2**24  # logits that are kept for the backward pass instead of being computed twice


class Projection(NamedTuple):
    """Output embeddings at N positions: logits = transform(sum of inputs @ weights.T + bias).

    There is a second pair of inputs and weights where the output embeddings have a LoRA adapter.
    """

    inputs: tuple[torch.Tensor, ...]  # (N, H) each
    weights: tuple[torch.Tensor, ...]  # (V, H) each
    bias: torch.Tensor | None  # (V,)
    transform: LogitTransform

    def blocks(self) -> Iterator[slice]:
        """Slices of the vocabulary, in order."""
        positions, vocabulary = len(self.inputs[0]), len(self.weights[0])
        words = min(MOST, max(FEWEST, BLOCK // max(1, positions) // FEWEST * FEWEST))
        return (slice(start, min(start + words, vocabulary)) for start in range(0, vocabulary, words))

    def raw(self, words: slice) -> torch.Tensor:
        """Logits before the transform, (N, W), in the dtype of the weights."""
        logits_NW = self.inputs[0] @ self.weights[0][words].t()
        for inputs, weights in zip(self.inputs[1:], self.weights[1:], strict=True):
            logits_NW = logits_NW.add_(inputs @ weights[words].t())
        return logits_NW if self.bias is None else logits_NW.add_(self.bias[words])

    def logits(self, raw_NW: torch.Tensor) -> torch.Tensor:
        """A transformed copy of raw logits, at least in float32."""
        copy = raw_NW.to(torch.promote_types(raw_NW.dtype, torch.float32), copy=True)
        return self.transform.apply_(copy)


def in_block(labels_N: torch.Tensor, words: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether each label is one of these words, (N,) bool, and its index among them, (N, 1), zero where it is not."""
    inside_N = (labels_N >= words.start) & (labels_N < words.stop)
    return inside_N, torch.where(inside_N, labels_N - words.start, 0)[:, None]


class Summary(NamedTuple):
    """What is left of the logits of N positions after one pass over the vocabulary; (N,) at least in float32.

    All are relative to the largest logit, as in a softmax: logits are of a size at which float32 rounds by 1e-6.
    """

    chosen_N: torch.Tensor  # logit of the label, minus the largest
    largest_N: torch.Tensor
    total_N: torch.Tensor  # sum over the words of exp(logit - largest)
    weighted_N: torch.Tensor  # sum of exp(logit - largest) * (logit - largest); zero unless asked for
    kept: list[torch.Tensor]  # raw logits of the first blocks

    def log_probs(self) -> torch.Tensor:
        """Of the labels, (N,)."""
        return self.chosen_N - self.total_N.log()

    def entropy(self) -> torch.Tensor:
        """In nats, (N,)."""
        return self.total_N.log() - self.weighted_N / self.total_N


def summarize(projection: Projection, labels_N: torch.Tensor, *, keep: int = 0, entropy: bool = False) -> Summary:
    """Go through the vocabulary once.

    Args:
        keep: the number of raw logits to keep.
        entropy: whether it is wanted.
    """
    dtype = torch.promote_types(projection.weights[0].dtype, torch.float32)
    chosen_N = torch.zeros(labels_N.shape, dtype=dtype, device=labels_N.device)
    lowest = torch.finfo(dtype).min
    largest_N = torch.full_like(chosen_N, lowest)
    total_N, weighted_N = torch.zeros_like(chosen_N), torch.zeros_like(chosen_N)
    kept: list[torch.Tensor] = []
    for words in projection.blocks():
        raw_NW = projection.raw(words)
        keep -= raw_NW.numel()
        if keep >= 0:
            kept.append(raw_NW)
        logits_NW = projection.logits(raw_NW)
        inside_N, index_N1 = in_block(labels_N, words)
        chosen_N = torch.where(inside_N, logits_NW.gather(1, index_N1).squeeze(1), chosen_N)
        before_N, largest_N = largest_N, torch.maximum(largest_N, logits_NW.amax(-1))
        logits_NW.sub_(largest_N[:, None])
        step_N = before_N - largest_N
        if entropy:
            logits_NW.clamp_(min=lowest)  # a word that cannot occur adds 0, not 0 * inf
            weighted_N = (weighted_N + total_N * step_N) * step_N.exp() + (logits_NW.exp() * logits_NW).sum(-1)
        total_N = total_N * step_N.exp() + logits_NW.exp_().sum(-1)
    return Summary(chosen_N - largest_N, largest_N, total_N, weighted_N, kept)


class _ChosenLogProbs(torch.autograd.Function):
    """`log_probs` for a `Projection` that is laid out flat: autograd sees tensors only."""

    @staticmethod
    def forward(
        ctx: Any, labels_N: torch.Tensor, transform: LogitTransform, bias_V: torch.Tensor | None, *pairs: torch.Tensor
    ) -> torch.Tensor:
        """One pass over the vocabulary; `pairs` are inputs (N, H) and weights (V, H) in turn. Returns (N,)."""
        projection = Projection(pairs[0::2], pairs[1::2], bias_V, transform)
        summary = summarize(projection, labels_N, keep=KEPT if any(ctx.needs_input_grad) else 0)
        ctx.transform, ctx.pairs, ctx.has_bias = transform, len(pairs), bias_V is not None
        bias = [] if bias_V is None else [bias_V]
        ctx.save_for_backward(labels_N, summary.largest_N, summary.total_N, *pairs, *bias, *summary.kept)
        return summary.log_probs()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_N: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """A second pass. From the gradient of the log-probabilities, (N,), to those of the arguments of `forward`."""
        labels_N, largest_N, total_N, *saved = ctx.saved_tensors
        pairs, rest = saved[: ctx.pairs], saved[ctx.pairs :]
        bias_V, kept = (rest[0], rest[1:]) if ctx.has_bias else (None, rest)
        projection = Projection(tuple(pairs[0::2]), tuple(pairs[1::2]), bias_V, ctx.transform)
        wanted = ctx.needs_input_grad[3:]
        inputs = [  # sums over all blocks
            torch.zeros_like(tensor, dtype=total_N.dtype) if want else None
            for tensor, want in zip(projection.inputs, wanted[0::2], strict=True)
        ]
        weights = [
            torch.empty_like(tensor) if want else None
            for tensor, want in zip(projection.weights, wanted[1::2], strict=True)
        ]
        bias = torch.empty_like(bias_V) if ctx.needs_input_grad[2] else None
        for number, words in enumerate(projection.blocks()):
            raw_NW = kept[number] if number < len(kept) else projection.raw(words)
            full_NW = _logit_gradient(projection, raw_NW, labels_N, (largest_N, total_N), gradient_N, words)
            if bias is not None:
                bias[words] = full_NW.sum(0)
            gradient_NW = full_NW.to(raw_NW.dtype)
            del raw_NW, full_NW
            for pair, of_inputs, of_weights in zip(range(len(inputs)), inputs, weights, strict=True):
                if of_inputs is not None:
                    of_inputs.add_(gradient_NW @ projection.weights[pair][words])
                if of_weights is not None:
                    torch.mm(gradient_NW.t(), projection.inputs[pair], out=of_weights[words])
        rounded = [None if part is None else part.to(gradient_NW.dtype) for part in inputs]
        return None, None, bias, *(part for pair in zip(rounded, weights, strict=True) for part in pair)


def _logit_gradient(
    projection: Projection,
    raw_NW: torch.Tensor,
    labels_N: torch.Tensor,
    summary: tuple[torch.Tensor, torch.Tensor],
    gradient_N: torch.Tensor,
    words: slice,
) -> torch.Tensor:
    """Gradient of raw logits (N, W), at least in float32: (1 where the label is, minus the probability) * gradient.

    Args:
        summary: `largest_N` and `total_N` of a `Summary`.
    """
    largest_N, total_N = summary
    logits_NW = projection.logits(raw_NW)
    slope = projection.transform.slope(logits_NW)
    inside_N, index_N1 = in_block(labels_N, words)
    result_NW = logits_NW.sub_(largest_N[:, None]).exp_().mul_((-gradient_N / total_N)[:, None])
    result_NW.scatter_add_(1, index_N1, torch.where(inside_N, gradient_N, 0)[:, None])
    return result_NW if isinstance(slope, float) and slope == 1 else result_NW.mul_(slope)


def log_probs(projection: Projection, labels_N: torch.Tensor) -> torch.Tensor:
    """Natural log-probability of each label, (N,), at least in float32; gradients for all parts of the projection."""
    pairs = [tensor for pair in zip(projection.inputs, projection.weights, strict=True) for tensor in pair]
    return _ChosenLogProbs.apply(labels_N, projection.transform, projection.bias, *pairs)


@torch.no_grad()
def log_probs_and_entropy(projection: Projection, labels_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`log_probs`, and the entropy at each position in nats, (N,) each; without gradients."""
    summary = summarize(projection, labels_N, entropy=True)
    return summary.log_probs(), summary.entropy()


class LogProbs(nn.Module):
    """`log_probs` through the output embeddings of a causal model.

    It becomes a child of that model, without parameters of its own. ZeRO 3 then gathers the weights for its forward
    and its backward pass, as for any module.
    """

    def __init__(self, causal: Any, transform: LogitTransform) -> None:
        super().__init__()
        head = causal.get_output_embeddings()
        self._shared = (causal, head)  # in a tuple, since a module that is a child twice has two names
        self._transform = transform

    def usable(self) -> bool:
        """Whether the model still has the output embeddings that it had, and no adapter was merged into them."""
        causal, head = self._shared
        return causal.get_output_embeddings() is head and is_known(head)

    def forward(self, hidden_NH: torch.Tensor, labels_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(N, H) and (N,) int64 to log-probabilities and, in evaluation, entropies; (N,), at least in float32."""
        projection = self._projection(hidden_NH)
        return (
            (log_probs(projection, labels_N), None) if self.training else log_probs_and_entropy(projection, labels_N)
        )

    def _projection(self, hidden_NH: torch.Tensor) -> Projection:
        head = self._shared[1]
        if type(head) is nn.Linear:
            return Projection((hidden_NH.to(head.weight.dtype),), (head.weight,), head.bias, self._transform)
        name, base = head.active_adapters[0], head.base_layer
        down, up = head.lora_A[name], head.lora_B[name]
        low_NR = down(head.lora_dropout[name](hidden_NH.to(down.weight.dtype))) * head.scaling[name]
        dtype = base.weight.dtype
        inputs = (hidden_NH.to(dtype), low_NR.to(dtype))
        return Projection(inputs, (base.weight, up.weight.to(dtype)), base.bias, self._transform)

    def share_parameters(self) -> None:
        """Let DeepSpeed gather the parameters for this module too, under ZeRO 3. Has to precede the forward."""
        for parameter in self._shared[1].parameters():
            if hasattr(parameter, "ds_id"):
                deepspeed.zero.register_external_parameter(self, parameter)


def attach_log_probs(model: Any, temperature: float = 1.0) -> LogProbs | None:
    """Give a causal model (or the one in a PeftModel) a `LogProbs`; None where its logits are of another kind.

    That is: no plain linear layer, an adapter other than plain LoRA, or logits that are changed by more than a scale
    or a soft cap.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    transform = probe_transform(causal) if is_known(causal.get_output_embeddings()) else None
    if transform is None:
        return None
    causal.critical_log_probs = LogProbs(causal, LogitTransform(transform.scale / temperature, transform.cap))
    return causal.critical_log_probs


def is_known(head: nn.Module) -> bool:
    """Whether this is a linear layer, or PEFT's with one adapter that is active, unmerged and no variant (as DoRA)."""
    if type(head) is nn.Linear:
        return True
    if type(getattr(head, "base_layer", None)) is not nn.Linear or type(head).__name__ != "Linear":
        return False
    if head.merged or head.disable_adapters or len(head.active_adapters) != 1:
        return False
    name = head.active_adapters[0]
    return name in head.lora_A and name not in head.lora_variant and head.lora_B[name].bias is None
