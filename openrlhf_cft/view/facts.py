"""What a data set says of itself, in words: how its tokens were selected, and with which model and limits."""

from __future__ import annotations

import json
from typing import Any

from openrlhf_cft import records
from openrlhf_cft.view.dataset import Annotated


def selection(data: Annotated) -> str:
    """What it means that a token has a weight, in a sentence or two."""
    derived = data.metadata.get("derived") or {}
    criterion = str(data.metadata.get("criterion", ""))
    name, _, k = criterion.partition("-")
    if data.mask == records.MASK and data.mask not in derived and name == "strict" and k.isdigit():
        tried, none = ("best other token was", "that did not lead")
        if k != "2":
            tried, none = f"{int(k) - 1} best other tokens were", "none of them led"
        return (
            f"In the place of every token of a correct response the model's {tried} tried, and the response finished "
            f"from there. Where {none} to a correct answer, the token is critical."
        )
    how = (derived.get(data.mask) or {}).get("how") if isinstance(derived, dict) else None
    origin = f", selected by {how}" if how else ""
    return f"A token is marked when its weight in the column {data.mask!r} is above 0{origin}."


def facts(data: Annotated) -> list[tuple[str, str]]:
    """Names and values of what is known, most wanted first."""
    known = data.metadata
    decoding = known.get("decoding") or {}
    found: list[tuple[str, Any]] = [
        ("model", known.get("model")),
        ("criterion", known.get("criterion")),
        ("mask", data.mask),
        ("verifier", known.get("verifier")),
        ("token budget", decoding.get("max_new_tokens")),
        ("dtype", known.get("dtype")),
        ("tokenizer", data.fingerprint),
        ("source", (known.get("source") or {}).get("dataset")),
        ("openrlhf_cft", (known.get("versions") or {}).get("openrlhf_cft")),
    ]
    return [(name, str(value)) for name, value in found if value is not None]


def metadata_text(data: Annotated) -> str:
    """All of the file metadata, to read."""
    return json.dumps(data.metadata, indent=2, ensure_ascii=False) if data.metadata else ""
