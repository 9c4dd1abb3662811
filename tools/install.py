"""Installs the pinned packages of a machine without a GPU into the environment of the Python that runs this.

    .venv/bin/python tools/install.py                   # `make setup` runs it
    .venv/bin/python tools/install.py --wheels wheels   # `make wheels`: the same packages into a folder of wheels

pip and not uv: uv does not read pip's configuration, so it does not see the mirror, proxy or folder of wheels that a
user's pip is set up with. The lock files are made by uv (`make lock`).

torch has three sources. The first that has it is taken, and a line says which:

1. a `+cpu` build that the user's own pip finds (a mirror, an extra index, a folder of wheels);
2. PyTorch's own index of CPU builds, asked once and with a short time-out: a site without a network waits for seconds;
3. PyPI, whose build for Linux is made for CUDA and needs NVIDIA's libraries even where there is no GPU.

Standard library only. TORCH_CPU_INDEX names another index for the second source.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements-cpu.txt"
LOCKS = ("-r", str(LOCK), "-r", str(ROOT / "requirements-dev.txt"))  # as pip's arguments
OPENRLHF = "0.11.2"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ANSWER_SECONDS = 20  # for the index of CPU builds to answer, name look-up included
CUDA_DOWNLOAD_GB, CUDA_DISK_GB = 3, 7  # of PyPI's torch 2.13.0 with its libraries, Linux x86-64


class InstallError(RuntimeError):
    """The environment cannot be made. One sentence; shown without a traceback."""


def main() -> None:
    """Install everything, torch first, and stop with one sentence where that fails."""
    parser = argparse.ArgumentParser(description="Install the pinned packages of a machine without a GPU.")
    parser.add_argument("--wheels", type=Path, help="write the wheels of an installed environment to this folder")
    folder = parser.parse_args().wheels
    try:
        if folder is not None:
            fill(folder)
            return
        install_torch(pinned("torch"))
        say("packages for a machine without a GPU (1 to 2 minutes)")
        pip("install", "--no-compile", "--no-deps", "--use-pep517", *LOCKS)  # an old pip warns without it
        install_openrlhf()
    except InstallError as error:
        sys.exit(f"setup: {error}")


def fill(folder: Path) -> None:
    """Write the wheel of every package to a folder, the build of torch that this environment has among them.

    At a site without a network `PIP_NO_INDEX=1 PIP_FIND_LINKS=folder make setup` installs from there.

    Args:
        folder: is made; wheels that are there already are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch = f"torch=={installed_version('torch')}"
    wheel = ("wheel", "--wheel-dir", str(folder), "--find-links", str(folder))
    if torch.endswith("+cpu"):
        pip(*wheel, "--no-deps", "--extra-index-url", cpu_index(), torch)
    else:
        pip(*wheel, "--constraint", str(LOCK), torch)
    pip(*wheel, "--no-deps", *LOCKS)
    with openrlhf_wheel() as requirement:
        pip(*wheel, "--no-deps", requirement)
    say(f"{len(list(folder.glob('*.whl')))} wheels in {folder}")


def install_torch(version: str) -> None:
    """Install torch from the first source that has it, with what it needs to be imported, and import it.

    Args:
        version: without a local part, as in `2.13.0`.

    Raises:
        InstallError: no source has it, the disk is too small, or it does not import.
    """
    index = cpu_index()
    cpu_build = f"torch=={version}+cpu"
    if installed_version("torch") not in (version, f"{version}+cpu"):
        if has(cpu_build):
            say(f"{cpu_build}, which this machine's pip finds")
        elif answers(index, version):
            say(f"{cpu_build} from {index}")
            pip("install", "--no-compile", "--no-deps", "--index-url", index, cpu_build)
        else:
            say(
                f"torch=={version} from PyPI: no {cpu_build} was found and {index} did not answer. This build works "
                f"without a GPU, but its CUDA libraries are a download of {CUDA_DOWNLOAD_GB} GB and take "
                f"{CUDA_DISK_GB} GB"
            )
            require_disk()
    # The libraries of the build that is there now, in the versions of the lock.
    pip("install", "--no-compile", "--constraint", str(LOCK), f"torch=={version}")
    require_import()


def has(requirement: str) -> bool:
    """Install a requirement without its dependencies where the user's pip finds it.

    Raises:
        InstallError: pip found it and could not install it; says why.
    """
    tried = run_pip("install", "--no-compile", "--no-deps", requirement)
    # The second is what pip says of a build that is not there while a constraint of the user's names the package.
    absent = ("No matching distribution found", "ResolutionImpossible")
    if tried.returncode and not any(sentence in tried.stderr for sentence in absent):
        raise InstallError(f"pip cannot install {requirement}: {tried.stderr.strip().splitlines()[-1]}")
    return tried.returncode == 0


def answers(index: str, version: str) -> bool:
    """Whether an index holds a CPU build of torch for this Python; False too where it does not answer in time."""
    command = ("index", "versions", "--timeout", "5", "--retries", "0", "--index-url", index, "torch")
    try:
        found = run_pip(*command, timeout=ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return found.returncode == 0 and f"{version}+cpu" in found.stdout


def cpu_index() -> str:
    """The index of CPU builds of torch."""
    return os.environ.get("TORCH_CPU_INDEX", CPU_INDEX)


def install_openrlhf() -> None:
    """Install OpenRLHF without its dependencies, of which flash-attn and bitsandbytes need CUDA.

    Raises:
        InstallError: pip does not find it.
    """
    with openrlhf_wheel() as requirement:
        pip("install", "--no-compile", "--no-deps", requirement)


@contextmanager
def openrlhf_wheel() -> Iterator[str]:
    """What names OpenRLHF to pip: a requirement, or where that has no wheel for this machine, the path of one.

    Its wheels hold Python alone, but are named for Linux on x86-64 and Python 3.10 to 3.12. Elsewhere one of them gets
    a name that says what is in it.
    """
    requirement = f"openrlhf=={OPENRLHF}"
    with tempfile.TemporaryDirectory() as folder:
        download = ("download", "--no-deps", "--only-binary", ":all:", "--dest", folder)
        if run_pip(*download, requirement).returncode == 0:
            yield requirement
            return
        pip(*download, "--platform", "manylinux1_x86_64", "--python-version", "3.12", requirement)
        (wheel,) = Path(folder).glob("*.whl")
        yield str(wheel.rename(wheel.with_name(f"openrlhf-{OPENRLHF}-py3-none-any.whl")))


def require_disk() -> None:
    """Refuse a disk that PyPI's build of torch does not fit on.

    Raises:
        InstallError: names what is free and what is needed.
    """
    free = shutil.disk_usage(sys.prefix).free / 1e9
    needed = CUDA_DISK_GB + CUDA_DOWNLOAD_GB
    if free < needed:
        raise InstallError(
            f"{sys.prefix} has {free:.1f} GB free, and PyPI's build of torch needs {needed} GB during the set-up. "
            "Free some, or set PIP_EXTRA_INDEX_URL to an index with CPU builds"
        )


def require_import() -> None:
    """Import torch in a fresh process, before anything is compiled against it.

    Raises:
        InstallError: it does not import; gives the last line of what it said.
    """
    found = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, text=True, check=False)
    if found.returncode:
        lines = found.stderr.strip().splitlines() or [f"exit code {found.returncode}"]
        raise InstallError(
            f"torch {installed_version('torch')} is installed and does not import ({lines[-1]}). "
            "Delete the environment (make clean) and try again"
        )


def pinned(name: str) -> str:
    """The version of a package in the lock."""
    found = re.search(rf"^{re.escape(name)}==(\S+)", LOCK.read_text(), re.MULTILINE)
    assert found is not None, f"{LOCK} pins {name}"
    return found[1]


def installed_version(name: str) -> str | None:
    """The version of an installed package, looked up anew; None where it is not installed."""
    for distribution in metadata.distributions(name=name):
        return distribution.version
    return None


def pip(*arguments: str) -> None:
    """Run pip and show what it says.

    Raises:
        InstallError: it failed.
    """
    if run_pip(*arguments, capture=False).returncode:
        raise InstallError("pip failed; its last lines say why")


def run_pip(*arguments: str, capture: bool = True, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run this environment's pip with the user's own configuration."""
    command, *rest = arguments
    words = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", *rest]
    if command == "index":  # which prints nothing under --quiet
        words.remove("--quiet")
    return subprocess.run(words, capture_output=capture, text=True, timeout=timeout, check=False)


def say(line: str) -> None:
    """Print one line of progress."""
    print(f"setup: {line}", flush=True)


if __name__ == "__main__":
    main()
