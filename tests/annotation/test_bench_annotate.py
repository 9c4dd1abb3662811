"""The benchmark's own way to annotate, the rival of ours, finds what ours finds."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from scripted import HashModel, SumJudge, decode

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import bench_annotate

from openrlhf_cft.annotation.annotator import Annotator, Outcome, Status
from openrlhf_cft.annotation.settings import AnnotateSettings, Question


def outcome(kind: type[Annotator], seed: int) -> Outcome:
    annotator = kind(HashModel(seed), SumJudge(), decode, AnnotateSettings(3, 4 + seed % 9, exhaustive=True))
    return asyncio.run(annotator.annotate(Question([1, 2, 3], str(seed % 3))))


def test_all_alternatives_at_once_are_those_of_one_after_another() -> None:
    annotated = 0
    for seed in range(100):
        rival = outcome(bench_annotate.Batched, seed)
        assert rival == outcome(Annotator, seed)
        annotated += rival.status is Status.ANNOTATED
    assert annotated > 10
