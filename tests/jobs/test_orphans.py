"""What a process has started ends with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

STARTER = """
import os, subprocess, sys
from openrlhf_cft.jobs.orphans import end_children_with_this_process
end_children_with_this_process()
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
both = [sys.executable, "-c", f"import subprocess; subprocess.run({sleeper})"]
print(subprocess.Popen(sleeper).pid, subprocess.Popen(both).pid, flush=True)
sys.stdin.readline()
os._exit(0)
"""


@pytest.mark.parametrize("how", ["is killed", "ends"])
def test_children_end_with_their_process(how: str) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    command = [sys.executable, "-c", STARTER, how]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    children = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
    while not children[1].children():
        time.sleep(0.01)
    family = [*children, *children[1].children()]
    assert all(child.is_running() for child in family)
    if how == "is killed":
        os.kill(process.pid, signal.SIGKILL)
    else:
        process.stdin.write("end\n")
        process.stdin.flush()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=300)  # the sleepers would go on for ten minutes
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
    assert bystander.poll() is None, "others are left alone"
    bystander.kill()
    bystander.wait()
