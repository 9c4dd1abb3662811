"""CPU time of a call, whatever else this process and this machine do."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def cpu_seconds(call: Callable[[], object], repeat: int = 1, clock: Callable[[], float] = time.thread_time) -> float:
    """The least of several calls, in seconds, of this thread alone.

    Garbage is not looked for meanwhile: in a process that has run a thousand tests, one search takes half a second.
    """
    times = []
    searched = gc.isenabled()
    gc.disable()
    try:
        for _ in range(repeat):
            start = clock()
            call()
            times.append(clock() - start)
    finally:
        if searched:
            gc.enable()
    return min(times)
