"""Annotated data sets for the tests of masks: by the real annotator over a scripted model, and of written text."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripted import SamplingModel, SumJudge, decode
from train_helpers import write_rows

from openrlhf_cft.annotation.annotator import Annotator, Status
from openrlhf_cft.annotation.row_worker import to_payload
from openrlhf_cft.annotation.settings import AnnotateSettings, Question
from openrlhf_cft.data import records
from openrlhf_cft.data.records import tokenizer_fingerprint

BUDGET = 12


def prompts() -> list[list[int]]:
    return [[1 + first, 1 + second] for first in range(7) for second in range(7)]


def annotate(path: Path, top_k: int, exhaustive: bool = False, seed: int = 3, samples: int = 0) -> Path:
    """Write what the real annotator finds with a scripted model: those of 49 prompts that it answers right."""
    settings = AnnotateSettings(top_k, BUDGET, exhaustive, samples=samples)
    annotator = Annotator(SamplingModel(seed), SumJudge(), decode, settings)
    rows = []
    for number, prompt_ids in enumerate(prompts()):
        outcome = asyncio.run(annotator.annotate(Question(prompt_ids, "1", id=str(number))))
        if outcome.status is Status.ANNOTATED:
            payload = to_payload(outcome)
            ids = {records.PROMPT: decode(prompt_ids), records.PROMPT_IDS: prompt_ids}
            rows.append({records.ID: str(number), **ids, **payload})
    assert len(rows) > 8
    metadata = {"criterion": f"strict-{top_k}", "verifier": "math", "tokenizer_fingerprint": "scripted"}
    return write_rows(path, rows, metadata)


def written(
    path: Path, tokenizer: Any, texts: Sequence[str], model: str | None = None, seed: int = 0, critical: float = 0.4
) -> Path:
    """Write a row a text: tokenized behind its prompt, EOS at its end, with a random mask and no outcomes."""
    chance = random.Random(seed)
    rows = []
    for number, text in enumerate(texts):
        prompt = f"The answer to {number} is:\n"
        prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        both = tokenizer(prompt + text, add_special_tokens=False)["input_ids"]
        assert both[: len(prompt_ids)] == prompt_ids
        ids = [*both[len(prompt_ids) :], tokenizer.eos_token_id]
        rows.append(
            {
                records.ID: f"row-{number}",
                records.PROMPT: prompt,
                records.RESPONSE: tokenizer.decode(ids, skip_special_tokens=True),
                records.PROMPT_IDS: prompt_ids,
                records.RESPONSE_IDS: ids,
                records.MASK: [float(chance.random() < critical) for _ in ids],
            }
        )
    metadata = {"model": model, "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer), "criterion": "strict-3"}
    return write_rows(path, rows, metadata)
