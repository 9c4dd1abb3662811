"""A CPU time limit, exact to a few milliseconds. The kernel enforces it and kills the process, whatever that does.

    cpu_timer(os.getpid()).set(5.0)     # SIGPROF after 5 s of CPU time; 0 takes it back

`signal.setitimer(ITIMER_PROF)` counts whole ticks. On a busy machine it charges a process more than it ran, and once
ended a limit of 3 s after 2.5 s. A POSIX timer counts the time that ran. macOS does not have it, so `setitimer` is
used there.
"""

from __future__ import annotations

import ctypes
import functools
import math
import signal
import time
from typing import Any


class _Event(ctypes.Structure):
    """`struct sigevent`, which has 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),  # 0: by the signal
        ("rest", ctypes.c_byte * 48),
    )


class _Times(ctypes.Structure):
    """`struct itimerspec`: the interval, which stays 0, and the time to go."""

    _fields_ = (("interval", ctypes.c_long * 2), ("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class TickTimer:
    """The timer of `signal.setitimer`."""

    def set(self, seconds: float) -> None:
        """Send SIGPROF after so much CPU time of this process; 0: never."""
        signal.setitimer(signal.ITIMER_PROF, seconds)


class PosixTimer:
    """A timer over the CPU time of this process.

    Raises:
        OSError, AttributeError: there is none on this system.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        if not hasattr(library, "timer_create"):  # glibc before 2.34
            library = ctypes.CDLL("librt.so.1", use_errno=True)
        self._timer, self._settime = ctypes.c_void_p(), library.timer_settime
        event = _Event(signal=signal.SIGPROF)
        clock: Any = time.CLOCK_PROCESS_CPUTIME_ID
        if library.timer_create(clock, ctypes.byref(event), ctypes.byref(self._timer)):
            raise OSError(ctypes.get_errno(), "timer_create")

    def set(self, seconds: float) -> None:
        """See `TickTimer.set`."""
        fraction, whole = math.modf(seconds)
        times = _Times(seconds=int(whole), nanoseconds=int(fraction * 1e9))
        if self._settime(self._timer, 0, ctypes.byref(times), None):
            raise OSError(ctypes.get_errno(), "timer_settime")


@functools.lru_cache(maxsize=1)
def cpu_timer(pid: int) -> PosixTimer | TickTimer:
    """The timer of this process, whose id `pid` is: a fork has to make its own."""
    try:
        return PosixTimer()
    except (OSError, AttributeError):
        return TickTimer()
