"""Combine repeated runs: the mean over seeds with its interval, and the difference of two arms.

    mean_over_seeds([0.41, 0.44, 0.43])             # of one arm
    mean_over_seeds(paired_by_seed(sft, cft))       # cft - sft: two arms that share data and seeds

Pure. One run has no interval: its margin is absent, not zero.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

# Student's t, two-sided 95 %, for 1, 2, 3 ... degrees of freedom: for so few, the normal 1.96 is far too narrow.
STUDENT_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
LARGEST = 1.96 + 2.6 / 16  # from 16 degrees of freedom on, a little too wide


def mean_over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean of one figure over seeds, and the half width of its 95 % interval (Student's t).

    Returns:
        `mean` and `seeds`; with two seeds or more also `margin`.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("a mean over seeds needs at least one value")
    figures: dict[str, Any] = {"mean": statistics.fmean(values), "seeds": len(values)}
    if len(values) > 1:
        freedom = len(values) - 1
        quantile = STUDENT_95[freedom - 1] if freedom <= len(STUDENT_95) else LARGEST
        figures["margin"] = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return figures


def paired_by_seed(first: Mapping[int, float], second: Mapping[int, float]) -> list[float]:
    """`second` minus `first`, as in `intervals.differences`, at the seeds that both have, in their order."""
    return [second[seed] - first[seed] for seed in sorted(first.keys() & second.keys())]


def mean_text(figure: Mapping[str, Any], digits: int = 3) -> str:
    """A mean as it is printed: `0.427 ± 0.012`, or `0.427` of one seed."""
    text = f"{figure['mean']:.{digits}f}"
    return f"{text} ± {figure['margin']:.{digits}f}" if "margin" in figure else text
