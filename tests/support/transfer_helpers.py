"""What the tests of `masks transfer` share: texts, a template, the command, and probabilities the slow way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from openrlhf_cft.cli.masks import main
from openrlhf_cft.data.records import PROMPT_IDS, RESPONSE_IDS, read_rows

TEXTS = [f"The answer to {n} + {n} is {2 * n}, so there are {2 * n} pieces. Zwölf 🎉 数学" for n in range(30)]
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}<assistant> "


def load(path: str) -> Any:
    return AutoTokenizer.from_pretrained(path)


def run(source: Path, to: str, out: Path, *flags: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of the target, and the figures."""
    report = out.with_suffix(".json")
    main(["transfer", str(source), "--to", to, "--out", str(out), "--report", str(report), *flags])
    return list(read_rows(out)), json.loads(report.read_text())


def literal_probabilities(model: str, row: dict[str, Any]) -> list[float]:
    """One row at a time, in float64, from the whole logits."""
    exact = AutoModelForCausalLM.from_pretrained(model, dtype="float64").eval()
    ids = torch.tensor([row[PROMPT_IDS] + row[RESPONSE_IDS]])
    with torch.no_grad():
        probabilities = exact(ids).logits[0].softmax(-1)
    first = len(row[PROMPT_IDS])
    return [float(probabilities[first + t - 1, token]) for t, token in enumerate(row[RESPONSE_IDS])]
