"""Success rates of few responses: weights for an arm, and how often a single greedy rollout says the same as they do.

As many questions are taken of few, of some and of many steps, all of which the base answers right.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

from arms import ANNOTATED
from common import module
from data import PART, annotate_file, derive, keep, shares
from ladder.arms import RATED
from ladder.base import Ladder

from openrlhf_cft.data.records import (
    ALTERNATIVES,
    ID,
    MASK,
    RESPONSE_IDS,
    SAMPLED,
    alternative_from_dict,
    read_rows,
)
from openrlhf_cft.masks.sampled_verdicts import HALF, SampledVerdicts

STRATA = ((2, 3), (4, 5), (6, 8))  # numbers of steps, from and to
Rows = list[dict[str, Any]]


def chosen(study: Ladder, number: int) -> Rows:
    """So many training questions with a right greedy response: as many of each stratum, where it has that many."""
    right = {row[ID] for row in read_rows(study.results / ANNOTATED, [ID])}
    asked = [row for row in map(json.loads, study.questions("train").open()) if row["id"] in right]
    each = number // len(STRATA)
    return [row for low, high in STRATA for row in [row for row in asked if low <= row["steps"] <= high][:each]]


def annotate_rated(study: Ladder, kind: str, part: int) -> dict[str, Any]:
    """A part of the questions of that kind, `rated` or `deep`, with all alternatives and their success rates."""
    name, parts = f"{kind}-{part}", getattr(study, f"{kind}_parts")
    rows = chosen(study, getattr(study, kind))[part::parts]
    if not rows:  # the base has too few right answers of a stratum
        return {"rows": 0}
    file = study.run_dir / "questions" / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = getattr(study, f"{kind}_samples")
    found = annotate_file(study, file, name, "--annotate.samples", samples, "--annotate.exhaustive")
    keep(study, study.run_dir / name, f"{kind}-{PART.format(part)}")
    return found


def merged(study: Ladder, kind: str) -> Path:
    """All parts of a kind as one data set; a folder."""
    out = study.run_dir / f"{kind}-merged"
    shutil.rmtree(out, ignore_errors=True)
    parts = [study.results / f"{kind}-{PART.format(part)}" for part in range(getattr(study, f"{kind}_parts"))]
    module(study, out.name, "masks", "merge", *(part for part in parts if part.exists()), "--out", out)
    return out


def rated_masks(study: Ladder) -> dict[str, Any]:
    """The data set of the arms with few rows."""
    derive(study, merged(study, "rated"), RATED)
    return shares(study, RATED)


def horizon(study: Ladder) -> dict[str, Any]:
    """Do the greedy verdict of an alternative and its success rate agree, and masks of both? By number of steps."""
    steps = {row["id"]: row["steps"] for row in map(json.loads, study.questions("train").open())}
    by_stratum: dict[str, Rows] = defaultdict(list)
    for row in read_rows(merged(study, "deep")):
        (stratum,) = (f"{low} to {high}" for low, high in STRATA if low <= steps[row[ID]] <= high)
        by_stratum[stratum].append(row)
    return {"by_steps": {stratum: horizon_of(rows) for stratum, rows in by_stratum.items()}}


def horizon_of(rows: Rows) -> dict[str, Any]:
    """Of some rows: `SampledVerdicts`, and tokens critical by the greedy rollouts, by the rates, and by both."""
    verdicts, tokens = SampledVerdicts(), 0
    critical = {"greedy": 0, "sampled": 0, "both": 0}
    own = []  # the success rates of the response's own tokens
    for row in rows:
        verdicts.add(row)
        tokens += len(row[RESPONSE_IDS])
        own += [rate["correct"] / rate["count"] for rate in row[SAMPLED] if rate]
        for greedy, position in zip(row[MASK], row[ALTERNATIVES], strict=True):
            by_rate = fails_by_rate(position)
            critical["greedy"] += greedy == 1
            critical["sampled"] += by_rate
            critical["both"] += by_rate and greedy == 1
    mean = sum(own) / len(own) if own else None
    return {
        "rows": len(rows),
        "tokens": tokens,
        "own_rate": mean,
        "critical": critical,
        "verdicts": verdicts.figures(),
    }


def fails_by_rate(position: list[dict[str, Any]] | None) -> bool:
    """Whether there are alternatives, and fewer than half of the samples of each of them are correct."""
    rates = [alternative_from_dict(tried).sampled for tried in position or []]
    return bool(rates) and all(rate is not None and rate.rate < HALF for rate in rates)
