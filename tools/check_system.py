"""Checks what pip cannot install, before anything is downloaded: Python, compiler, headers, libraries, memory, disk.

    python3 tools/check_system.py --venv .venv          # exit status 1, and all that is missing in one message

`make setup` runs it with the Python that the environment is made from. Standard library only, and it parses on Python
3.7, so that an old one gets a sentence too.
"""

from __future__ import annotations

import sys

try:
    import argparse
    import ctypes
    import importlib.util
    import os
    import platform
    import shutil
    import sysconfig
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "openrlhf_cft" / "doctor"))
    from nvidia import gpu_faults
except ImportError as error:
    sys.exit(
        f"setup: {sys.executable} has no module {error.name}, as where only python3-minimal is installed. "
        "Install the whole of Python (Debian, Ubuntu: sudo apt-get install python3) and try again"
    )

PYTHONS = ((3, 10), (3, 13))  # the first and the last that the lock files are for
MACHINES = ("x86_64", "aarch64")
GLIBC = (2, 31)  # of the newest wheel in the lock
SHARED_MEMORY_GIB = 1.0  # /dev/shm: DeepSpeed, vLLM and Ray share memory between processes there
MEMORY_GIB = 7.0  # the largest step of the quickstart: see docs/development.md
DISK_GIB = 6.0  # for the environment; tools/install.py asks for more where PyPI's torch is all there is

# What is missing: Debian's and Ubuntu's package, Fedora's package.
PACKAGES = {
    "compiler": ("g++", "gcc-c++"),
    "make": ("make", "make"),
    "git": ("git", "git"),
    "headers": ("{python}-dev", "{python}-devel"),
    "venv": ("{python}-venv", "{python}-pip"),
    "libnuma": ("libnuma1", "numactl-libs"),
    "lscpu": ("util-linux", "util-linux"),
}


def missing_packages(gpu: bool) -> dict[str, str]:
    """What system packages bring and this machine lacks: key of `PACKAGES` to what it is needed for."""
    found = {}
    if shutil.which((os.environ.get("CXX") or "c++").split()[0]) is None:
        found["compiler"] = "a C++ compiler (c++): DeepSpeed's operators are compiled"
    for name, use in (("make", "the commands are its targets"), ("git", "the tests list the project's files with it")):
        if shutil.which(name) is None:
            found[name] = f"{name}: {use}"
    if not (Path(sysconfig.get_config_var("INCLUDEPY")) / "Python.h").exists():
        found["headers"] = f"Python.h of {sys.executable}: DeepSpeed's operators are compiled with it"
    if any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        found["venv"] = f"the modules venv and ensurepip of {sys.executable}: they make the environment"
    if not gpu and not loads("libnuma.so.1"):
        found["libnuma"] = "libnuma.so.1: vLLM's engine for CPUs loads it"
    if not gpu and shutil.which("lscpu") is None:
        found["lscpu"] = "lscpu: vLLM's engine for CPUs asks it for the cores"
    return found


def loads(library: str) -> bool:
    """Whether the dynamic linker finds a shared library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def other_faults(venv: Path) -> list[str]:
    """What no package mends, a sentence each."""
    faults = []
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        found, first, last = (".".join(map(str, version)) for version in (sys.version_info[:3], *PYTHONS))
        faults.append(
            f"{sys.executable} is Python {found}, and {first} to {last} are supported: name another one, for instance "
            "`make PYTHON=python3.12 setup`"
        )
    libc, version = platform.libc_ver()
    if libc != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < GLIBC:
        needed = ".".join(map(str, GLIBC))
        faults.append(f"the C library is {libc or 'not glibc'} {version}; the packages need glibc {needed} or newer")
    if not Path("/sys/devices/system/cpu/possible").exists():
        faults.append("/sys is not mounted, where vLLM's engine for CPUs finds the cores: mount -t sysfs sysfs /sys")
    faults += shared_memory_faults(Path("/dev/shm"))
    memory = memory_gib()
    if memory < MEMORY_GIB:
        faults.append(f"this machine has {memory:.1f} GiB of memory, and training needs {MEMORY_GIB:.0f} GiB")
    folder = next(path for path in (venv, *venv.parents) if path.exists())
    free = shutil.disk_usage(folder).free / 2**30
    if free < DISK_GIB and not (venv / "bin" / "python").exists():
        faults.append(f"{folder} has {free:.1f} GiB free, and the environment needs {DISK_GIB:.0f} GiB")
    return faults


def shared_memory_faults(folder: Path) -> list[str]:
    """Why processes cannot share memory in `folder`, a sentence each."""
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        return [f"{folder} is not there or not writable: mount it (mount -t tmpfs tmpfs {folder})"]
    size = shutil.disk_usage(folder).free / 2**30
    if size < SHARED_MEMORY_GIB:
        return [
            f"{folder} has {size:.2f} GiB free, and {SHARED_MEMORY_GIB:.0f} GiB is needed: "
            f"docker build and docker run take --shm-size=2g; elsewhere mount -o remount,size=2g {folder}"
        ]
    return []


UNSUPPORTED = (
    "setup: {system}: annotation, training and evaluation need Linux on x86-64 or aarch64. Use WSL 2 on Windows and a "
    "container on macOS. The commands masks and view may run here; nobody has tried"
)


def memory_gib() -> float:
    """Memory of this machine, or of the container where that is less, in GiB."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(name).read_text()))
        except (OSError, ValueError):  # no such cgroup, or "max"
            continue
    return total / 2**30


def install_lines(missing: dict[str, str]) -> list[str]:
    """The commands that install what is missing, on Debian or Ubuntu and on Fedora."""
    own = Path(sys.executable).name  # python3.12 where that is what the user named
    debian_python = own if own.startswith("python3.") else "python3"
    names = [
        [PACKAGES[key][column].format(python=python) for key in missing]
        for column, python in ((0, debian_python), (1, debian_python))
    ]
    return [
        f"Debian, Ubuntu: sudo apt-get install {' '.join(names[0])}",
        f"Fedora: sudo dnf install {' '.join(names[1])}",
    ]


def main() -> None:
    """Print all that is missing, and exit with status 1 where anything is."""
    parser = argparse.ArgumentParser(description="Check what pip cannot install.")
    parser.add_argument("--venv", type=Path, default=Path(".venv"), help="where the environment goes (default .venv)")
    parser.add_argument("--gpu", action="store_true", help="the environment is for an NVIDIA GPU")
    parser.add_argument("--installed", action="store_true", help="only what running needs: shared memory and memory")
    args = parser.parse_args()
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        sys.exit(UNSUPPORTED.format(system=f"{platform.system()} on {platform.machine()}"))
    missing = {} if args.installed else missing_packages(args.gpu)
    faults = other_faults(args.venv.absolute())
    if args.gpu and not args.installed:
        faults += gpu_faults()
    if not missing and not faults:
        return
    lines = ["setup: fix this first", *(f"  {line}" for line in [*missing.values(), *faults])]
    if missing:
        lines += install_lines(missing)
    sys.exit("\n".join(lines))


if __name__ == "__main__":
    main()
