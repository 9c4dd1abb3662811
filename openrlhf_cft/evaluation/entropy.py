"""Exact entropies: which responses are measured, and the figures of the measured positions. Pure.

- Whole samples are measured, in an order that a seed decides, until they hold the wanted number of positions. First
  comes one sample of each question, then a second one of each, so that as many questions as possible are covered.
- Entropy by position: bins whose width grows with the position, the same for all checkpoints and data sets.
- Critical and other tokens: a checkpoint is given the responses of an annotated data set. It is measured at the tokens
  of weight above 0, and at those of weight 0.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openrlhf_cft.engine.scoring_process import Scored

KINDS = ("critical", "other")

Key = tuple[str, int]  # of a sample: the question's id, the sample's number


@dataclass(frozen=True)
class Bin:
    """Positions of a response, from 1 for its first token, both ends included."""

    first: int
    last: int


def choose(lengths: Mapping[Key, int], positions: int, seed: int) -> list[Key]:
    """The samples to measure.

    Args:
        lengths: T of each sample.
        positions: how many are wanted; a response is taken whole, so there may be a few more.
        seed: of the order of the questions.
    """
    questions = sorted({row_id for row_id, _ in lengths})
    random.Random(seed).shuffle(questions)
    place = {row_id: index for index, row_id in enumerate(questions)}
    ordered = sorted(lengths, key=lambda key: (key[1], place[key[0]]))
    chosen, tokens = [], 0
    for key in ordered:
        if tokens >= positions:
            break
        chosen.append(key)
        tokens += lengths[key]
    return chosen


def bins(longest: int) -> list[Bin]:
    """Bins of positions up to `longest`: 1, 2, 3, 4-5, 6-7, 8-10, 11-15, 16-22 ..., two to each doubling."""
    starts = sorted({round(2 ** (i / 2)) for i in range(2 * max(1, longest).bit_length() + 2)})
    return [Bin(a, b - 1) for a, b in itertools.pairwise(starts) if a <= longest]


def of_questions(ids: Sequence[str], scored: Mapping[Key, Scored]) -> Any:
    """(Q, 2) sum of entropies and number of positions of each question; zeros where no sample of it was measured."""
    sums = np.zeros((len(ids), 2))
    place = {row_id: index for index, row_id in enumerate(ids)}
    for (row_id, _), response in scored.items():
        sums[place[row_id]] += (response.entropy.sum(dtype=float), len(response.entropy))
    return sums


def by_position(ids: Sequence[str], scored: Mapping[Key, Scored]) -> dict[Bin, Any]:
    """As `of_questions`, for each bin of positions."""
    longest = max((len(response.entropy) for response in scored.values()), default=0)
    parts: dict[Bin, Any] = {}
    for part in bins(longest) if scored else ():
        cut = slice(part.first - 1, part.last)
        inside = {key: Scored(response.entropy[cut], response.nll[cut]) for key, response in scored.items()}
        parts[part] = of_questions(ids, inside)
    return parts


def by_kind(weights: Iterable[Sequence[float]], scored: Iterable[Scored]) -> dict[str, Any]:
    """Entropy and nll at critical and at other tokens.

    Args:
        weights: R masks of shape (T,), one for each annotated response.
        scored: (R,) a checkpoint's scores of the same responses.

    Returns:
        `critical_entropy`, `other_entropy`, `critical_nll` and `other_nll`: (R, 2) sums and numbers of tokens.
    """
    sums: dict[str, list[tuple[float, int]]] = {f"{kind}_{of}": [] for of in ("entropy", "nll") for kind in KINDS}
    for mask, response in zip(weights, scored, strict=True):
        critical = np.asarray(mask) > 0
        for kind, chosen in zip(KINDS, (critical, ~critical), strict=True):
            for of in ("entropy", "nll"):
                values = getattr(response, of)[chosen]
                sums[f"{kind}_{of}"].append((values.sum(dtype=float), len(values)))
    return {name: np.array(pairs, float).reshape(-1, 2) for name, pairs in sums.items()}
