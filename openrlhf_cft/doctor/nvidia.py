"""NVIDIA GPUs of this machine, and whether its driver and CUDA toolkit fit the packages.

    python3 openrlhf_cft/doctor/nvidia.py      # the architectures to compile flash-attn for: 90, or 80;90

It needs only the standard library, and parses on Python 3.7: `tools/check_system.py` uses it before anything is
installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

DRIVER = 580  # the oldest branch that runs CUDA 13
CUDA = 13  # PyPI's torch 2.13 and vLLM 0.29 are built with CUDA 13.0; another minor of the toolkit compiles too
ARCHITECTURES = (80, 90, 100, 120)  # that flash-attn 2.8.3 has code for; each also runs on the minors of its major


def gpu_faults() -> list[str]:
    """The reasons why the packages for GPUs would not build or run here, one sentence each."""
    faults = []
    driver = query("driver_version")
    if not driver:
        faults.append("nvidia-smi does not answer: install NVIDIA's driver, or set up without a GPU (make GPU= setup)")
    elif int(driver[0].split(".")[0]) < DRIVER:
        faults.append(f"NVIDIA's driver is {driver[0]}, and CUDA {CUDA} needs {DRIVER} or newer: update the driver")
    compiler = nvcc()
    if compiler is None:
        faults.append(
            "nvcc is neither on the PATH nor in CUDA_HOME or /usr/local/cuda, and flash-attn and DeepSpeed need it to "
            f"compile: install the CUDA toolkit {CUDA}.0"
        )
    else:
        version = toolkit(compiler)
        if version is None or int(version.split(".")[0]) != CUDA:
            faults.append(
                f"{compiler} is CUDA {version or '?'}, and the packages need {CUDA}.0: install that toolkit, "
                "or set CUDA_HOME to it"
            )
    return faults


def gpus() -> list[tuple[str, float, float]]:
    """Name, memory and free memory in GiB of each GPU."""
    found = []
    for line in query("memory.total,memory.free,name"):
        total, free, name = line.replace(" MiB", "").split(", ", 2)
        found.append((name, int(total) / 1024, int(free) / 1024))
    return found


def query(field: str) -> list[str]:
    """What nvidia-smi reports for each GPU, one line each; empty if it does not answer."""
    try:
        command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
        lines = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in lines if re.match(r"\s*\d", line)]


def nvcc() -> str | None:
    """The path of CUDA's compiler, where DeepSpeed and PyTorch look for it."""
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    return shutil.which("nvcc", path=os.path.join(home, "bin")) or shutil.which("nvcc")


def toolkit(compiler: str) -> str | None:
    """The version of the CUDA toolkit, as in `13.0`."""
    try:
        text = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"release (\d+\.\d+)", text)
    return match[1] if match else None


def architectures() -> str:
    """The flash-attn architectures that the GPUs of this machine need, as `80;90`; all of them if none is known."""
    capabilities = [tuple(int(part) for part in line.split(".")[:2]) for line in query("compute_cap")]
    wanted = {10 * major for major, *_ in capabilities} & set(ARCHITECTURES)
    return ";".join(map(str, sorted(wanted or ARCHITECTURES)))


if __name__ == "__main__":
    print(architectures())
