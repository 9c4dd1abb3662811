"""Ends the processes that a process has started when it ends, even if it is killed.

vLLM's core goes on for ever, with all of its GPU memory, when the process that started it is killed, and the engine
that is to replace it would not start.
"""

from __future__ import annotations

import os
import subprocess
import sys

# Waits until its parent has changed, however long a look takes, then kills the parent's process group. `-S -E -s`: it
# needs no packages.
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
    """Put this process and all that it will start into a process group that ends when this process does.

    Processes that make a session of their own are not part of it.
    """
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    watch = [sys.executable, "-S", "-E", "-s", "-c", WATCH, str(os.getpid())]
    subprocess.Popen(watch, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
