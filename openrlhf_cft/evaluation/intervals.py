"""Intervals and paired tests by resampling questions. Pure; numpy only.

A figure is a ratio of two sums over questions: correct answers / questions, entropies / tokens. For each figure we
keep what every question adds to both sums, (Q, 2). Resampling is then one weight per question, and one matrix product.

    figures(ratios, seed)               # value and 95 % interval of each
    differences(first, second, seed)    # second - first, over the same resampled questions
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
_CHUNK = 2**23  # resampled questions in memory at a time

Ratios = Mapping[str, Any]  # of float64 arrays (Q, 2): numerator and denominator, by the figure's name


@dataclass(frozen=True)
class Figure:
    """An estimate with its interval."""

    value: float
    low: float | None  # of the interval; None if fewer than two questions were measured: they have no spread
    high: float | None


def figures(ratios: Ratios, seed: int, resamples: int = RESAMPLES) -> dict[str, Figure]:
    """Each figure with its percentile bootstrap interval (Efron 1979): questions are drawn with replacement.

    Args:
        ratios: (Q, 2) each, float64, the same questions in the same order. A figure whose denominators are all 0 was
            not measured and is left out.
        seed: of the resampling.
        resamples: how many times to resample.
    """
    measured = {name: array for name, array in ratios.items() if array[:, 1].any()}
    if not measured:
        return {}
    stacked = np.stack(list(measured.values()), axis=1)
    values = _ratio(stacked.sum(axis=0))
    resampled = np.concatenate([_means(weights, stacked) for weights in _weights(len(stacked), seed, resamples)])
    return dict(zip(measured, _figures(values, resampled, _counts(stacked)), strict=True))


def differences(first: Ratios, second: Ratios, seed: int, resamples: int = RESAMPLES) -> dict[str, Figure]:
    """Each figure of `second` minus that of `first`, if both have it. Both use the same resampled questions.

    Args:
        first, second: as in `figures`, with the same questions row by row.
        seed: of the resampling.
        resamples: how many times to resample.
    """
    names = [name for name in first if name in second and first[name][:, 1].any() and second[name][:, 1].any()]
    if not names:
        return {}
    before, after = (np.stack([ratios[name] for name in names], axis=1) for ratios in (first, second))
    values = _ratio(after.sum(axis=0)) - _ratio(before.sum(axis=0))
    weights = _weights(len(before), seed, resamples)
    resampled = np.concatenate([_means(w, after) - _means(w, before) for w in weights])
    counts = np.minimum(_counts(before), _counts(after))
    return dict(zip(names, _figures(values, resampled, counts), strict=True))


def mcnemar(first: Any, second: Any) -> float:
    """The exact two-sided p-value of McNemar's test: do two checkpoints answer the same questions equally well?

    Only questions count that one of them answers correctly and the other does not. Under the null hypothesis each
    of these is a coin toss (McNemar 1947, exact binomial form).

    Args:
        first, second: (Q,) whether each question is answered correctly.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    tosses = only_first + only_second
    tail = sum(math.comb(tosses, i) for i in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**tosses)


def _weights(questions: int, seed: int, resamples: int) -> Iterator[Any]:
    """(chunk, Q) how often each question is drawn; the draws are `default_rng(seed).integers(Q, size=(resamples, Q))`,
    a few rows at a time."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // max(1, questions))
    for start in range(0, resamples, rows):
        drawn = rng.integers(questions, size=(min(rows, resamples - start), questions))
        offset: Any = questions * np.arange(len(drawn))[:, None]
        yield np.bincount((drawn + offset).ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def _means(weights: Any, stacked: Any) -> Any:
    """(chunk, M) the figures of resampled questions.

    Args:
        weights: (chunk, Q).
        stacked: (Q, M, 2).
    """
    questions, figure_count, _ = stacked.shape
    sums = weights @ stacked.reshape(questions, -1)
    return _ratio(sums.reshape(-1, figure_count, 2))


def _ratio(sums: Any) -> Any:
    """Numerator / denominator; NaN if the resample has none of the questions that were measured."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[..., 0] / sums[..., 1]


def _counts(stacked: Any) -> Any:
    """(M,) how many questions each figure was measured on."""
    return (stacked[..., 1] > 0).sum(axis=0)


def _figures(values: Any, resampled: Any, counts: Any) -> list[Figure]:
    """The figures. Those that were measured on two questions or more get an interval."""
    low, high = np.nanpercentile(resampled, [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=0)
    return [
        Figure(float(value), float(a), float(b)) if count > 1 else Figure(float(value), None, None)
        for value, a, b, count in zip(values, low, high, counts, strict=True)
    ]
