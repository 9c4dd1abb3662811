"""SFT data for what the masks cost: correct samples of the base, one for each question that has one.

In parts, each for the tokens that the masks of the same questions cost.
"""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from arms import REJECTION
from common import evaluate, responses
from data import training_part, within_budget
from ladder.base import Ladder

PART = "rejection-{}.parquet"


def rejection_part(study: Ladder, part: int) -> dict[str, Any]:
    """Sample a part of the training questions, and keep one correct response of each at random."""
    asked = {row["id"]: row for row in map(json.loads, training_part(study, part).open())}
    budget = study.result(f"annotate-{part}")["rollout_tokens"]
    length = study.result("base-validation")["figures"]["sampled_length"]
    drawn = math.ceil(1.1 * budget / len(asked) / length)
    name = f"rejection-{part}"
    evaluate(study, name, study.base(), f"train-{part}", drawn, "--eval.entropy_positions", 0, "--train.seed", part)
    sampled = [row for row in responses(study, name, f"train-{part}") if not row["greedy"]]
    correct, spent = within_budget(sampled, budget)
    by_question: dict[str, list[str]] = {}
    for row in correct:
        by_question.setdefault(row["id"], []).append(row["response"])
    chance = random.Random(part)
    rows = [{**asked[row_id], "response": chance.choice(by_question[row_id])} for row_id in sorted(by_question)]
    write(study, PART.format(part), rows)
    return {"budget": budget, "decoded_tokens": spent, "samples": drawn, "correct": len(correct), "rows": len(rows)}


def rejection_rows(study: Ladder) -> dict[str, Any]:
    """All parts as one file, which an arm trains on."""
    files = [study.results / PART.format(part) for part in range(study.parts)]
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    write(study, REJECTION, rows)
    return {"rows": len(rows)}


def write(study: Ladder, name: str, rows: list[dict[str, Any]]) -> None:
    partial = study.results / f"{name}.partial"
    pq.write_table(pa.Table.from_pylist(rows), partial, compression="zstd")
    partial.replace(study.results / name)
