"""The machine: processor, memory, shared memory, disk, GPUs, a Ray cluster."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from openrlhf_cft.doctor.finding import Finding
from openrlhf_cft.doctor.nvidia import CUDA, gpu_faults, gpus, nvcc, query, toolkit
from openrlhf_cft.engine.platform import has_fast_bfloat16
from openrlhf_cft.jobs.cluster import require_listener

GIB = 2**30
MEMORY_GIB, SHARED_GIB, DISK_GIB = 7.0, 1.0, 5.0  # of the quickstart: see docs/development.md
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine(gpu: bool) -> Iterator[Finding]:
    """The findings about the machine, from the processor to the cluster.

    Args:
        gpu: whether the environment is for GPUs.
    """
    yield _processor(gpu)
    yield _space("memory", memory_bytes(), MEMORY_GIB, "training the quickstart's model needs {:.0f} GiB")
    yield _shared_memory(Path("/dev/shm"))
    folder = Path.cwd()
    yield _space(f"free disk at {folder}", shutil.disk_usage(folder).free, DISK_GIB, "a run needs some {:.0f} GiB")
    if gpu:
        yield from _gpus()
    yield _cluster(os.environ.get("RAY_ADDRESS", ""))


def memory_bytes() -> int:
    """Memory of this machine, or of the container if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in MEMORY_LIMITS:
        try:
            total = min(total, int(Path(name).read_text()))
        except (OSError, ValueError):  # no such cgroup, or "max"
            continue
    return total


def _processor(gpu: bool) -> Finding:
    fast = has_fast_bfloat16()
    value = f"{os.cpu_count()} cores, {platform.machine()}, {'with' if fast else 'without'} AVX-512"
    if platform.machine() != "x86_64":
        value = f"{os.cpu_count()} cores, {platform.machine()}"
    if fast or gpu:
        return Finding("processor", value)
    slow = "bfloat16 is slow here, so everything runs in float32, 2 to 3 times slower"
    return Finding("processor", value, slow, fatal=False)


def _space(name: str, size: int, needed: float, sentence: str) -> Finding:
    short = size / GIB < needed
    return Finding(name, f"{size / GIB:.1f} GiB", sentence.format(needed) if short else "")


def _shared_memory(folder: Path) -> Finding:
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        return Finding("shared memory", "none", f"{folder} cannot be written", f"mount -t tmpfs tmpfs {folder}")
    free = shutil.disk_usage(folder).free / GIB
    if free >= SHARED_GIB:
        return Finding("shared memory", f"{free:.1f} GiB free")
    remedy = f"docker run --shm-size=2g, elsewhere mount -o remount,size=2g {folder}"
    return Finding("shared memory", f"{free:.2f} GiB free", f"{SHARED_GIB:.0f} GiB is needed", remedy)


def _gpus() -> Iterator[Finding]:
    """GPUs, their driver, and the compiler for them."""
    for number, (name, total, free) in enumerate(gpus()):
        yield Finding(f"GPU {number}", f"{name}, {free:.0f} of {total:.0f} GiB free")
    driver, compiler = query("driver_version"), nvcc()
    version = toolkit(compiler) if compiler else None
    value = f"driver {driver[0] if driver else 'none'}, CUDA toolkit {version or 'none'}"
    faults = gpu_faults()
    if faults or version == f"{CUDA}.0" or os.environ.get("DS_SKIP_CUDA_CHECK") == "1":
        yield Finding("NVIDIA", value, "; ".join(faults), "install what is named, then make setup" if faults else "")
        return
    other = f"torch is built with CUDA {CUDA}.0, and DeepSpeed refuses to compile with another minor version"
    yield Finding("NVIDIA", value, other, "before training, export DS_SKIP_CUDA_CHECK=1", fatal=False)


def _cluster(address: str) -> Finding:
    if not address:
        return Finding("Ray", "no RAY_ADDRESS: a job starts its own")
    try:
        require_listener(address)
    except (OSError, OverflowError) as error:
        remedy = "unset RAY_ADDRESS, or start the cluster"
        return Finding("Ray", f"RAY_ADDRESS={address}", f"nobody answers there ({error})", remedy)
    return Finding("Ray", f"a cluster at {address}")
