"""Ends the processes that a process has started when that process ends, even if it is killed.

If the process that started vLLM's core is killed, the core continues for ever and keeps all of its GPU memory. The
engine that should replace it could then not start.
"""

from __future__ import annotations

import os
import subprocess
import sys

# Waits until its parent has changed, however long one check takes, then kills the process group of the old parent. It
# needs no packages, hence `-S -E -s`.
WATCH = """
import os, signal, sys, time
parent = int(sys.argv[1])
while os.getppid() == parent:
    time.sleep(0.5)
try:
    os.killpg(parent, signal.SIGKILL)
except ProcessLookupError:
    pass
"""


def end_children_with_this_process() -> None:
    """Put this process, and all processes that it will start, into a process group that ends together with it.

    Processes that call `setsid` are not part of the group.
    """
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    watch = [sys.executable, "-S", "-E", "-s", "-c", WATCH, str(os.getpid())]
    subprocess.Popen(watch, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
