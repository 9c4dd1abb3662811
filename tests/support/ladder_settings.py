"""The second study's settings, in a folder of a test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "evidence"))

import study
from ladder.base import Ladder, ladder_flags

__all__ = ["ladder", "study"]


def ladder(folder: Path, **changed: Any) -> Ladder:
    flags = study.parser()
    ladder_flags(flags)
    own = vars(flags.parse_args([]))
    for name in ("minutes", "study"):
        own.pop(name)
    return Ladder(**{**own, "run_dir": folder / "run", "results": folder / "results", "base_part_rows": 10, **changed})
