"""What the set-up for GPUs asks of a machine, and what it compiles for it; nvidia-smi and nvcc are stand-ins."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from openrlhf_cft.doctor import machine as doctor_machine

ROOT = Path(__file__).parents[2]
SMI = """#!/bin/sh
case "$1" in
--query-gpu=driver_version) printf '%s\\n' {driver} ;;
--query-gpu=compute_cap) printf '%s\\n' {capabilities} ;;
esac
"""
NVCC = """#!/bin/sh
echo "Cuda compilation tools, release {version}, V{version}.48"
"""


def machine(folder: Path, driver: str = "580.95.05", capabilities: str = "9.0", cuda: str = "13.0") -> dict[str, str]:
    """The environment of a machine with these; what is empty is not there."""
    programs = {"nvidia-smi": driver and SMI.format(driver=driver, capabilities=capabilities)}
    programs["nvcc"] = cuda and NVCC.format(version=cuda)
    for name, text in programs.items():
        if text:
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:/usr/bin:/bin", "CUDA_HOME": str(folder / "none")}


def faults(environment: dict[str, str]) -> list[str]:
    script = "from nvidia import gpu_faults; [print(fault) for fault in gpu_faults()]"
    environment = {**environment, "PYTHONPATH": str(ROOT / "openrlhf_cft" / "doctor")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("lacks", "told"),
    [
        ({}, []),
        ({"driver": "595.10"}, []),
        ({"cuda": "13.1"}, []),  # another minor compiles too
        ({"driver": "570.133.20"}, ["NVIDIA's driver is 570.133.20, and CUDA 13 needs 580 or newer"]),
        ({"cuda": "12.8"}, ["nvcc is CUDA 12.8, and the packages need 13.0: install"]),
        ({"cuda": ""}, ["nvcc is neither on the PATH nor in CUDA_HOME or /usr/local/cuda"]),
        ({"driver": "535.1", "cuda": "12.2"}, ["driver is 535.1", "is CUDA 12.2"]),
        ({"driver": ""}, ["nvidia-smi does not answer"]),
    ],
)
def test_driver_and_toolkit(lacks: dict[str, str], told: list[str], tmp_path: Path) -> None:
    said = faults(machine(tmp_path, **lacks))
    assert len(said) == len(told) and all(words in line for words, line in zip(told, said, strict=True)), said


@pytest.mark.parametrize(("cuda", "remedy"), [("13.0", ""), ("13.1", "before training, export DS_SKIP_CUDA_CHECK=1")])
def test_another_minor_compiles_when_deepspeed_is_told(
    cuda: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in machine(tmp_path, cuda=cuda).items():
        monkeypatch.setenv(name, value)
    found = {finding.name: finding for finding in doctor_machine.machine(gpu=True)}["NVIDIA"]
    assert found.remedy == remedy and found.fatal is not bool(remedy), found
    monkeypatch.setenv("DS_SKIP_CUDA_CHECK", "1")
    assert not {finding.name: finding for finding in doctor_machine.machine(gpu=True)}["NVIDIA"].remedy, "it is done"


def test_all_that_is_missing_is_one_message(tmp_path: Path) -> None:
    """Before anything is downloaded, beside what a machine without a GPU may lack too."""
    environment = machine(tmp_path, driver="535.1", cuda="")
    command = [sys.executable, "tools/check_system.py", "--gpu", "--venv", str(tmp_path / "venv")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "driver is 535.1" in done.stderr and "nvcc is neither" in done.stderr


@pytest.mark.parametrize(
    ("capabilities", "compiled"),
    [
        ("9.0", "90"),
        ("8.6", "80"),
        ("9.0 8.0 9.0", "80;90"),
        ("10.3", "100"),
        ("12.0", "120"),
        ("7.5", "80;90;100;120"),
    ],
)
def test_flash_attn_is_compiled_for_the_gpus_there(capabilities: str, compiled: str, tmp_path: Path) -> None:
    environment = machine(tmp_path, capabilities=capabilities)
    command = [sys.executable, str(ROOT / "openrlhf_cft" / "doctor" / "nvidia.py")]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip() == compiled


def requirements(name: str) -> dict[str, str]:
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(each.name): str(each.specifier) for each in map(Requirement, lines)}


def test_gpu_requirements_have_all_that_openrlhf_asks_for() -> None:
    """It is installed without its dependencies, so that flash-attn can be left out."""
    asked = [Requirement(line) for line in metadata.requires("openrlhf") or []]
    needed = {canonicalize_name(each.name): str(each.specifier) for each in asked if each.marker is None}
    assert needed.pop("flash-attn") == "==2.8.3"
    listed = requirements("requirements-gpu.txt")
    assert {name: listed.get(name) for name in needed} == needed
    assert {"gguf", "matplotlib", "reasoning-gym", "mpmath"} <= set(listed), "examples and evaluation"


@pytest.mark.parametrize("flash", ["yes", "0"])
def test_the_set_up_with_and_without_flash_attn(flash: str, tmp_path: Path) -> None:
    command = ["make", "-n", "GPU=yes", f"FLASH_ATTN={flash}", f"VENV={tmp_path / 'venv'}", "setup"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("flash-attn==2.8.3" in done.stdout) == (flash == "yes")
    assert ("apply.py --force" in done.stdout) == (flash == "0"), "its modules import flash-attn"
    assert re.search(r"check_system.py --venv \S+ --gpu", done.stdout)
