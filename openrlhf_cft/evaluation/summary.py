"""`metrics.json`: every figure of every checkpoint on every data set, with intervals and paired differences. Pure.

    {"results": {DATA SET: {CHECKPOINT: {"questions": 48, "figures": {"accuracy": {"value", "low", "high"}, ...},
                                         "entropy_by_position": [{"first", "last", "positions", "value", ...}]}}},
     "differences": {DATA SET: [{"from": "base", "to": "cft", "figures": {...}, "accuracy_p": 0.02}]},
     "annotated": {"figures": {CHECKPOINT: {"critical_entropy": ...}}, "differences": [...]},
     "settings", "checkpoints", "data_sets", "versions"}

The tables, the plots and the figures on the page are made from this file alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from openrlhf_cft.engine.scoring_process import Scored
from openrlhf_cft.evaluation.entropy import Key, by_kind, by_position, of_questions
from openrlhf_cft.evaluation.intervals import Figure, differences, figures, mcnemar
from openrlhf_cft.evaluation.metrics import ENTROPY, Measured
from openrlhf_cft.evaluation.samples import EVALUATED, TOO_LONG


@dataclass(frozen=True)
class Result:
    """One checkpoint on one data set."""

    measured: Measured
    counts: dict[str, int]  # of questions: evaluated, too_long, failed
    seconds: float  # in the pipeline
    scored: dict[Key, Scored]  # exact entropies of some of its samples


def with_entropy(result: Result) -> Measured:
    """The figures of a result, with the exact entropy."""
    entropy = {ENTROPY: of_questions(result.measured.ids, result.scored)} if result.scored else {}
    return replace(result.measured, ratios={**result.measured.ratios, **entropy})


def metrics_summary(results: Mapping[str, Mapping[str, Result]], seed: int) -> dict[str, Any]:
    """The parts `results` and `differences` of `metrics.json`.

    Args:
        results: by data set, then by checkpoint.
        seed: of the resampling.
    """
    summary: dict[str, Any] = {"results": {}, "differences": {}}
    for dataset, by_checkpoint in results.items():
        summary["results"][dataset] = {name: _result(result, seed) for name, result in by_checkpoint.items()}
        measured = {name: with_entropy(result) for name, result in by_checkpoint.items()}
        summary["differences"][dataset] = [
            {"from": first, "to": second, **_difference(measured[first], measured[second], seed)}
            for first, second in itertools.combinations(measured, 2)
        ]
    return summary


def _result(result: Result, seed: int) -> dict[str, Any]:
    """One checkpoint on one data set."""
    measured = with_entropy(result)
    parts = by_position(measured.ids, result.scored)
    by_bin = figures({f"{part.first}": ratios for part, ratios in parts.items()}, seed)
    return {
        "questions": result.counts[EVALUATED],
        "too_long": result.counts[TOO_LONG],
        "failed": result.counts["failed"],
        "samples_per_question": measured.samples,
        "entropy_positions": sum(len(response.entropy) for response in result.scored.values()),
        "entropy_responses": len(result.scored),
        "seconds": result.seconds,
        "figures": {name: asdict(figure) for name, figure in figures(measured.ratios, seed).items()},
        "entropy_by_position": [
            {**asdict(part), "positions": int(ratios[:, 1].sum()), **asdict(by_bin[f"{part.first}"])}
            for part, ratios in parts.items()
        ],
    }


def _difference(first: Measured, second: Measured, seed: int) -> dict[str, Any]:
    """The second checkpoint minus the first, on the questions that both were asked."""
    before, after = _aligned(first, second)
    difference: dict[str, Any] = {"questions": len(next(iter(before.values()), ()))}
    difference["figures"] = {name: asdict(figure) for name, figure in differences(before, after, seed).items()}
    if difference["questions"]:
        difference["accuracy_p"] = mcnemar(before["accuracy"][:, 0] > 0, after["accuracy"][:, 0] > 0)
    return difference


def _aligned(first: Measured, second: Measured) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ratios of both, on their common questions in one order."""
    second_at = {row_id: index for index, row_id in enumerate(second.ids)}
    pairs = [(index, second_at[row_id]) for index, row_id in enumerate(first.ids) if row_id in second_at]
    own, others = ([pair[side] for pair in pairs] for side in (0, 1))
    names = [name for name in first.ratios if name in second.ratios]
    return {n: first.ratios[n][own] for n in names}, {n: second.ratios[n][others] for n in names}


def annotated_summary(
    weights: Sequence[Sequence[float]], scored: Mapping[str, Sequence[Scored]], seed: int
) -> dict[str, Any]:
    """Entropy and nll on critical and on other tokens. The intervals resample responses.

    Args:
        weights: R masks of shape (T,).
        scored: by checkpoint, (R,) scores.
        seed: of the resampling.
    """
    critical = int(sum((np.asarray(mask) > 0).sum() for mask in weights))
    ratios = {name: by_kind(weights, responses) for name, responses in scored.items()}
    return {
        "responses": len(weights),
        "positions": sum(map(len, weights)),
        "critical_positions": critical,
        "figures": {name: _as_json(figures(ratio, seed)) for name, ratio in ratios.items()},
        "differences": [
            {"from": a, "to": b, "figures": _as_json(differences(ratios[a], ratios[b], seed))}
            for a, b in itertools.combinations(ratios, 2)
        ],
    }


def _as_json(by_name: Mapping[str, Figure]) -> dict[str, Any]:
    return {name: asdict(figure) for name, figure in by_name.items()}
