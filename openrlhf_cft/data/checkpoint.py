"""Which weights a path or hub name stands for now: a checkpoint that was trained again is another one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from openrlhf_cft.jobs.workdir import WEIGHTS

PIECES, PIECE_BYTES = 64, 16 << 10  # of each file, evenly spread: a changed tensor is hit, a 7B model read in no time


def weights_fingerprint(model: str) -> str:
    """A hash of a checkpoint's weights: of names, sizes and pieces of its files, or the commit of a hub repository.

    Args:
        model: a path or a hub name.

    Returns:
        16 hexadecimal digits, or a commit; empty where a hub name is not known here.
    """
    if not os.path.isdir(model):
        return _commit(model)
    digest = hashlib.sha256()
    for file in sorted(file for file in Path(model).iterdir() if file.name.endswith(WEIGHTS)):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as opened:
            for number in range(PIECES):
                opened.seek(number * max(0, size - PIECE_BYTES) // (PIECES - 1))
                digest.update(opened.read(PIECE_BYTES))
    return digest.hexdigest()[:16]


def _commit(model: str) -> str:
    from transformers import AutoConfig

    try:
        return str(getattr(AutoConfig.from_pretrained(model), "_commit_hash", None) or "")
    except (OSError, ValueError):
        return ""
