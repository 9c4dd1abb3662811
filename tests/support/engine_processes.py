"""vLLM's engines among the processes of a run.

A process does not always get the name that vLLM gives it: setproctitle fails in silence. So the name decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import psutil

MARKS = ("VLLM::", "multiprocessing.spawn")  # the name that vLLM gives them, and the one that they begin with


def line_of(process: psutil.Process) -> str:
    """The command line; empty where the process has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def engines(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The cores of engines. Their own workers are spawned as they are, by them."""
    spawned = [process for process in processes if any(mark in line_of(process) for mark in MARKS)]
    pids = {process.pid for process in spawned}
    return [process for process in spawned if _parent(process) not in pids]


def _parent(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.Error:
        return None
