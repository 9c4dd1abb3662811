"""What a step costs: its time and where it goes, and the memory that it needs at its peak."""

from __future__ import annotations

import ctypes
import gc
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch


def resident(field: str) -> int:
    """Bytes of `VmRSS` or `VmHWM` of this process."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def peak_of(step: Callable[[], None]) -> int:
    """Bytes that a step needs above what is held before it: from the allocator on a GPU, else resident memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def seconds_of(step: Callable[[], None]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(arms: dict[str, Callable[[], None]], repetitions: int) -> dict[str, float]:
    """Median seconds of a step by arm; arms take turns, the order turned round each time."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for name, step in arms.items():  # the first step of an arm allocates what it then keeps
        step()
        print(f"bench: {name} is warm", file=sys.stderr, flush=True)
    for repetition in range(repetitions):
        names = list(arms) if repetition % 2 == 0 else list(arms)[::-1]
        for name in names:
            seconds[name].append(seconds_of(arms[name]))
            print(
                f"bench: {repetition + 1}/{repetitions} {name} {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True
            )
    return {name: statistics.median(values) for name, values in seconds.items()}


def parts_of(step: Callable[[], None]) -> dict[str, float]:
    """Seconds of a step by kind of operator, without what an operator calls; the profiler makes a step a bit longer.

    "outside operators" is Python, and what is no operator of PyTorch: DeepSpeed's Adam on a CPU.
    """
    gpu = torch.cuda.is_available()
    kinds = [torch.profiler.ProfilerActivity.CUDA if gpu else torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds) as profile:
        whole = seconds_of(step)
    seconds = dict.fromkeys(["matrix products", "attention", "other operators"], 0.0)
    for event in profile.key_averages():
        own = event.self_device_time_total if gpu else event.self_cpu_time_total
        seconds[_kind(event.key)] += own / 1e6
    return {**seconds, "outside operators": max(0.0, whole - sum(seconds.values()))}


def _kind(operator: str) -> str:
    """Of `aten::mm`, or of a kernel of a GPU."""
    name = operator.lower()
    if "scaled_dot_product" in name or "flash" in name or "fmha" in name:
        return "attention"
    products = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "gemm", "cutlass")
    return "matrix products" if name.startswith(products) or "gemm" in name else "other operators"


def matmul_rate(dtype: torch.dtype, hidden: int) -> float:
    """FLOP/s of the product of 4,096 hidden states with 8,192 rows of output embeddings; the best of five."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    states = torch.randn(4096, hidden, dtype=dtype, device=device)
    weights = torch.randn(8192, hidden, dtype=dtype, device=device)
    return 2 * 4096 * 8192 * hidden / min(seconds_of(lambda: states @ weights.t()) for _ in range(5))
