"""Whether a model fits on a GPU, how many responses fit at once, and what annotating rows costs at best.

Decoding one token for each of B responses reads all weights once and B caches. It takes two operations per parameter
and response. The roofline is the larger of the two times, by the card's datasheet; engines reach 0.7 of it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from openrlhf_cft.data.model_files import load_config, parameter_count
from openrlhf_cft.doctor.finding import Finding

GIB = 2**30
BYTES = 2  # of a bfloat16
USED = 0.9  # of the memory, as --vllm.gpu_memory_utilization has it
OTHER_BYTES = 2 * GIB  # activations, CUDA graphs and the like, of each GPU
# Bytes and dense bfloat16 operations per second, by the makers' datasheets.
CARDS = {
    "B200": (8.0e12, 2250e12),
    "H200": (4.8e12, 989e12),
    "H100": (3.35e12, 989e12),
    "A100": (2.04e12, 312e12),
    "L40S": (0.864e12, 362e12),
    "L40": (0.864e12, 181e12),
    "A10": (0.6e12, 125e12),
    "L4": (0.3e12, 121e12),
    "4090": (1.008e12, 165e12),
}
REACHED = 0.7
CRITICAL = 0.12  # share of critical tokens; each costs a second rollout, under Strict-3


@dataclass(frozen=True)
class Size:
    """The properties of a model that decide memory and time."""

    parameters: int
    cache_bytes: int  # of keys and values, per token

    @property
    def weight_bytes(self) -> int:
        """The size of all weights in bfloat16."""
        return BYTES * self.parameters


def size_of(model: str) -> Size:
    """The size of a checkpoint, from its configuration alone.

    Raises:
        InputError: there is no such checkpoint, or it is not a causal language model.
    """
    return Size(parameter_count(model, "--model"), cache_bytes(load_config(model, "--model")))


def cache_bytes(config: Any) -> int:
    """Bytes of one token's keys and values in bfloat16, over all layers. Sliding windows are not subtracted."""
    config = config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * BYTES * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * width)


def card_of(name: str) -> tuple[float, float] | None:
    """The figures of a card by its name, such as "NVIDIA A100-SXM4-80GB"; None if it is not known."""
    words = re.split(r"[^A-Za-z0-9]+", name)
    return next((figures for mark, figures in CARDS.items() if mark in words), None)


def tokens_per_second(size: Size, batch: int, context: int, gpus: int, card: tuple[float, float]) -> float:
    """The roofline of decoding.

    Args:
        size: of the model.
        batch: number of responses at once.
        context: tokens of each response that are in the cache, on average.
        gpus: number of GPUs of the engine.
        card: bytes and operations per second of each GPU.
    """
    read = (size.weight_bytes + batch * context * size.cache_bytes) / (gpus * card[0])
    computed = 2 * batch * size.parameters / (gpus * card[1])
    return batch / max(read, computed)


def fit(model: str, gpus: int, memory_gib: float, name: str, rows: int, response: int, context: int) -> list[Finding]:
    """Whether the model fits, and the estimate of the cost.

    Args:
        model: path or hub name.
        gpus: number of GPUs of an engine, its tensor parallel size.
        memory_gib: memory of each GPU.
        name: name of the card.
        rows: number of rows to annotate.
        response: number of tokens of a response.
        context: longest prompt and response together, in tokens.

    Raises:
        InputError: see `size_of`.
    """
    size = size_of(model)
    weights = f"{size.parameters / 1e9:.2f} B parameters, {size.weight_bytes / GIB:.1f} GiB of weights in bfloat16"
    free = USED * memory_gib * GIB - OTHER_BYTES
    tokens = int((gpus * free - size.weight_bytes) / size.cache_bytes)
    batch = tokens // context
    if batch < 1:
        problem = f"no response of {context} tokens fits on {gpus} × {memory_gib:.0f} GiB beside the weights"
        needed = math.ceil((size.weight_bytes + context * size.cache_bytes) / free) if free > 0 else 0
        remedy = f"--vllm.tensor_parallel_size {needed} or more" if needed > gpus else "more memory"
        return [Finding("model", weights, problem, remedy)]
    cache = f"{tokens * size.cache_bytes / GIB:.0f} GiB, {tokens:,} tokens: {batch:,} responses of {context} at once"
    found = [Finding("model", weights), Finding("KV cache of an engine", cache)]
    card = card_of(name)
    if card is None:
        return [*found, Finding("estimate", f"none: nothing is known of the card {name!r}")]
    return [*found, _estimate(size, gpus, min(batch, 1024), card, rows, response)]


def _estimate(size: Size, gpus: int, batch: int, card: tuple[float, float], rows: int, response: int) -> Finding:
    """GPU-hours of annotating rows under Strict-3."""
    rollouts = rows * response * (1 + CRITICAL)
    tokens = rows * response + rollouts * response / 2
    best = tokens_per_second(size, batch, response + 100, gpus, card)
    hours = tokens / best / 3600 * gpus
    value = (
        f"{rows:,} rows of {response} tokens: {tokens / 1e6:.1f} M tokens decoded; {best:,.0f} tokens/s at most, so "
        f"{hours:.2f} GPU-hours at best, about {hours / REACHED:.2f} expected"
    )
    return Finding("estimate", value)
