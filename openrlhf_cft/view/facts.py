"""What is known about a data set, in words: how its tokens were selected, and with which model and limits."""

from __future__ import annotations

import json
from typing import Any

from openrlhf_cft.data import records
from openrlhf_cft.data.mask_hints import made_by_counterfactuals, mask_hints
from openrlhf_cft.view.model import ShownData
from openrlhf_cft.view.summary import Summary


def selection(data: ShownData) -> str:
    """One or two sentences that say what the weight of a token means."""
    criterion = criterion_of(data)
    name, _, k = str(criterion).partition("-")
    if name != "strict" or not k.isdigit():
        origin = "" if criterion is None else f", selected by {criterion}"
        return f"A token is marked when its weight in the column “{data.mask}” is above 0{origin}."
    tried, none = "best other token was", "that did not lead"
    if k != "2":
        tried, none = f"{int(k) - 1} best other tokens were", "none of them led"
    return (
        f"In the place of every token of a correct response the model's {tried} tried, and the response finished "
        f"from there. Where {none} to a correct answer, the token is critical."
    )


def criterion_of(data: ShownData) -> str | None:
    """How the tokens of the mask were selected: by the annotator, or later by `masks derive`; None: not stated."""
    derived = data.metadata.get("derived")
    made = derived.get(data.mask) if isinstance(derived, dict) else None
    stated = made.get("how") if isinstance(made, dict) else None
    if stated is None and data.mask == records.MASK:
        stated = data.metadata.get("criterion")
    return None if stated is None else str(stated)


def facts(data: ShownData) -> list[tuple[str, str]]:
    """Names and values of the known facts, the most useful first."""
    known = data.metadata
    decoding = known.get("decoding") or {}
    pairs: list[tuple[str, Any]] = [
        ("model", known.get("model")),
        ("criterion", criterion_of(data)),
        ("mask", data.mask),
        ("verifier", known.get("verifier")),
        ("token budget", decoding.get("max_new_tokens")),
        ("dtype", known.get("dtype")),
        ("tokenizer", data.fingerprint),
        ("source", (known.get("source") or {}).get("dataset")),
        ("openrlhf_cft", (known.get("versions") or {}).get("openrlhf_cft")),
    ]
    return [(name, str(value)) for name, value in pairs if value is not None]


def hints(data: ShownData, summary: Summary) -> list[str]:
    """Hints at likely problems with the masks of the responses that are shown, see `data.mask_hints`."""
    if not made_by_counterfactuals(data.mask, criterion_of(data)):
        return []
    rollouts, cut_off = 0, 0
    if summary.cost is not None:
        rollouts, cut_off = summary.cost.rollouts, summary.cost.verdicts.get(records.Verdict.TRUNCATED.value, 0)
    return mask_hints(summary.all.critical, summary.all.tokens, cut_off, rollouts)


def metadata_text(data: ShownData) -> str:
    """All of the file metadata, as readable text."""
    return json.dumps(data.metadata, indent=2, ensure_ascii=False) if data.metadata else ""
