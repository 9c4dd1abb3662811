"""The set-up from an empty folder, with the network, and again after it was killed midway."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROBE = """
import importlib.util, sys
import openrlhf_cft, torch, transformers, deepspeed, ray, openrlhf.models, vllm
assert sys.prefix == sys.argv[1], sys.prefix
absent = [name for name in ("torchvision", "torchaudio", "torchcodec") if importlib.util.find_spec(name)]
assert not absent or torch.cuda.is_available(), absent
print("all imported")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what git tracks, or would track, in tmp_path."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    copy = tmp_path / "checkout"
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy


def outside_environment() -> dict[str, str]:
    """The environment without what `make test` set for this one."""
    mine = {"VENV", "TORCH_EXTENSIONS_DIR", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VIRTUAL_ENV"}
    env = {name: value for name, value in os.environ.items() if name not in mine}
    venv_bin = str(ROOT / ".venv" / "bin")
    env["PATH"] = ":".join(part for part in env["PATH"].split(":") if part != venv_bin)
    return env


def make_setup(checkout: Path, venv: Path) -> subprocess.CompletedProcess[str]:
    command = ["make", "setup", f"VENV={venv}"]
    return subprocess.run(
        command, cwd=checkout, env=outside_environment(), text=True, capture_output=True, check=False
    )


@pytest.mark.all
@pytest.mark.timeout(3600)
def test_from_scratch_and_after_a_kill(checkout: Path, tmp_path: Path) -> None:
    venv = tmp_path / "environment"
    first = subprocess.Popen(
        ["make", "setup", f"VENV={venv}"], cwd=checkout, env=outside_environment(), start_new_session=True
    )
    packages = venv / "lib"
    deadline = time.monotonic() + 1500  # PyPI's torch is a large download
    while not list(packages.glob("python*/site-packages/torch")):  # in the midst of unpacking
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (venv / ".stamp").exists()

    second = make_setup(checkout, venv)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "half made" in second.stdout
    probe = subprocess.run(
        [venv / "bin" / "python", "-c", PROBE, str(venv)], cwd=tmp_path, env=outside_environment(), check=False
    )
    assert probe.returncode == 0

    third = make_setup(checkout, venv)
    assert (third.returncode, third.stdout) == (0, ""), "there is nothing to do"
