"""The shared memory through which vLLM's processes talk to each other."""

from __future__ import annotations

from multiprocessing.process import BaseProcess
from pathlib import Path


def unname_shared_memory(processes: set[BaseProcess]) -> None:
    """Remove the names of these processes' shared memory (psm_*). By now all of them have mapped it.

    It is then freed when the last of them ends. Otherwise vLLM in a Ray actor would leave it behind: 160 MiB for each
    one that is killed.
    """
    import psutil

    for process in processes:
        try:
            root = psutil.Process(process.pid)
            for member in [root, *root.children(recursive=True)]:
                for line in Path(f"/proc/{member.pid}/maps").read_text().splitlines():
                    if "/dev/shm/psm_" in line and not line.endswith(" (deleted)"):
                        Path(line.split()[-1]).unlink(missing_ok=True)
        except (psutil.Error, OSError):  # ended meanwhile, or not Linux
            continue
