"""vLLM's shared memory that nobody uses any more: other engines of this machine keep theirs."""

from __future__ import annotations

import glob
from pathlib import Path


def buffers() -> set[str]:
    """The files of all engines that are there, and of those that ended without taking theirs away."""
    return set(glob.glob("/dev/shm/psm_*"))


def abandoned(before: set[str]) -> set[str]:
    """Those that were not there before and that no process has mapped."""
    new = buffers() - before
    for maps in Path("/proc").glob("[0-9]*/maps") if new else ():
        try:
            mapped = maps.read_text()
        except OSError:  # it has ended, or is another user's
            continue
        new = {name for name in new if name not in mapped}
    return new
