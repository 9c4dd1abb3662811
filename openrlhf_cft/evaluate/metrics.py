"""What is reported of a checkpoint: greedy accuracy, Pass@k, entropy. Pure; unmeasured is absent, not zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def pass_at_k(samples: int, correct: int, k: int) -> float | None:
    """The unbiased estimate of Pass@k from n samples of one question (Chen et al. 2021, arXiv 2107.03374, Eq. 1).

    Args:
        samples: n, how many were drawn.
        correct: c, how many of them are correct.
        k: how many the estimated experiment draws.

    Returns:
        1 - C(n - c, k) / C(n, k); None where k > n, which n samples cannot tell.
    """
    if k > samples:
        return None
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def powers_of_two(samples: int) -> list[int]:
    """1, 2, 4 ... up to `samples`, and `samples` itself."""
    return sorted({2**i for i in range(samples.bit_length()) if 2**i <= samples} | {samples}) if samples else []


def mean_entropy(samples: Sequence[dict[str, Any]]) -> float | None:
    """Mean entropy per token, in nats, estimated from samples drawn at temperature 1.

    The mean of -log p(token) over sampled tokens is an unbiased estimate of the mean of the entropies at the positions
    that were visited, because E[-log p] under p is the entropy. None without a sampled token.
    """
    tokens = sum(sample["length"] for sample in samples)
    return -sum(sample["logprob"] for sample in samples) / tokens if tokens else None


def metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All figures of one checkpoint.

    Args:
        rows: one a question: `greedy` and each of `samples` with `correct`, `length` (tokens), `stopped`, `logprob`
            (sum over its tokens, nats).
    """
    samples = [sample for row in rows for sample in row["samples"]]
    n = min((len(row["samples"]) for row in rows), default=0)
    found: dict[str, Any] = {
        "questions": len(rows),
        "samples_per_question": n,
        "accuracy": sum(row["greedy"]["correct"] for row in rows) / len(rows),
    }
    for k in powers_of_two(n):
        estimates = [
            pass_at_k(len(row["samples"]), sum(sample["correct"] for sample in row["samples"]), k) for row in rows
        ]
        found[f"pass@{k}"] = sum(e for e in estimates if e is not None) / len(rows)
    return {
        **found,
        "mean_entropy": mean_entropy(samples),
        "greedy_length": sum(row["greedy"]["length"] for row in rows) / len(rows),
        "sampled_length": sum(sample["length"] for sample in samples) / len(samples) if samples else None,
        "cut_off": sum(not sample["stopped"] for sample in samples) / len(samples) if samples else None,
    }
