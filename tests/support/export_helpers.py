"""What the tests of `masks export` and of cards share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from openrlhf_cft.cli.masks import main
from openrlhf_cft.data.records import MASK, read_rows


def export(annotated: Path, out: Path, kind: str, *flags: str) -> list[dict[str, Any]]:
    """Export, and read with `datasets` what the card points to."""
    main(["export", str(annotated), "--format", kind, "--out", str(out), *flags])
    return list(datasets.load_dataset(str(out), split="train", cache_dir=str(out.parent / "cache")))


def critical_rows(annotated: Path) -> list[dict[str, Any]]:
    return [row for row in read_rows(annotated) if any(row[MASK])]
