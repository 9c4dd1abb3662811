"""The share of one GPU that an engine has, where several engines of a small model run on it.

`jobs.gpus` sets it in the engine's actor, before the engine starts.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GPU_SHARE = "OPENRLHF_CFT_GPU_SHARE"  # environment variable; unset: the engine has its GPUs for itself


def gpu_share() -> float:
    """The share of this process's engine, above 0 and at most 1."""
    return float(os.environ.get(GPU_SHARE, "1"))


@contextmanager
def starting_alone() -> Iterator[None]:
    """While an engine starts, keep others on its GPU from starting: vLLM measures how much memory its own start takes.

    The lock ends with this process, however that ends.
    """
    if gpu_share() == 1:
        yield
        return
    import fcntl  # only here: Windows does not have it

    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace("/", "-")  # MIG's names have slashes
    with (Path(tempfile.gettempdir()) / f"openrlhf_cft-{os.getuid()}-gpu-{gpu}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
