"""The packages that the main job needs: which are installed, and which versions are known to work together."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.specifiers import SpecifierSet

from openrlhf_cft.doctor.finding import Finding
from openrlhf_cft.train.preflight import SUPPORTED_OPENRLHF

PYTHON = SpecifierSet(">=3.10,<3.14")
# The tested versions, see requirements-cpu.txt and requirements-gpu.txt; and the steps that need a package.
TESTED = {
    "torch": "2.13.0",
    "transformers": "5.15.0",
    "ray": "2.55.0",
    "vllm": "0.29.0",
    "deepspeed": "0.19.6",
    "openrlhf": "0.11.2",
}
USE = {
    "ray": "annotation and evaluation",
    "vllm": "annotation and evaluation",
    "deepspeed": "training",
    "openrlhf": "training",
}


def packages(gpu: bool) -> Iterator[Finding]:
    """The findings about Python and the packages.

    Args:
        gpu: whether the environment is for GPUs.
    """
    version = platform.python_version()
    problem = "" if PYTHON.contains(version) else f"Python {PYTHON} is supported"
    yield Finding("Python", f"{version}, {sys.executable}", problem, "make PYTHON=python3.12 setup" if problem else "")
    for name, tested in TESTED.items():
        yield _package(name, tested)
    if gpu:
        yield _flash_attn()


def installed(name: str) -> str | None:
    """The version of a package; vLLM's build for CPUs has another name."""
    for distribution in (name, f"{name}-cpu"):
        try:
            return metadata.version(distribution) + ("" if distribution == name else ", for CPUs")
        except metadata.PackageNotFoundError:
            continue
    return None


def _package(name: str, tested: str) -> Finding:
    version = installed(name)
    if version is None:
        remedy = f"make setup, or pip install {name}=={tested}"
        return Finding(name, "not installed", f"needed for {USE.get(name, 'everything')}", remedy)
    number = version.split(",")[0].split("+")[0]
    if name == "openrlhf" and not SpecifierSet(SUPPORTED_OPENRLHF).contains(number, prereleases=True):
        return Finding(name, version, f"{SUPPORTED_OPENRLHF} is supported", f"pip install --no-deps {name}=={tested}")
    other = "" if number == tested else f"tested with {tested}"
    return Finding(name, version, other, fatal=False)


def _flash_attn() -> Finding:
    version = installed("flash-attn")
    if version is not None:
        return Finding("flash-attn", version)
    remedy = "--ds.attn_implementation sdpa, ATTENTION=sdpa for the examples"
    return Finding("flash-attn", "not installed", "OpenRLHF's scripts ask for it", remedy, fatal=False)
