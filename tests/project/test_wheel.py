"""The wheel, built and installed alone into a fresh environment, with nothing but what it asks for: no torch, no GPU.

`make wheel` runs it. It downloads what pip does not have yet.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_install import make_wheel
from train_helpers import make_rows, make_tokenizer, write_rows

pytestmark = [pytest.mark.all, pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).resolve().parents[2]
# Of an OpenRLHF that works on GPUs, older than what is newest; stand-ins, as CUDA builds are of several GB.
WORKING = {
    "torch": "2.9.1",
    "vllm": "0.12.0",
    "ray": "2.48.0",
    "deepspeed": "0.18.2",
    "flash_attn": "2.8.3",
    "openrlhf": "0.11.2",
    "transformers": "4.57.3",
    "datasets": "4.0.0",
    "huggingface_hub": "0.36.0",
    "numpy": "2.2.6",
    "pyarrow": "20.0.0",
    "tqdm": "4.66.0",
    "jinja2": "3.1.4",
    "packaging": "24.2",
}
COMMANDS = ("annotate", "doctor", "evaluate", "masks", "view", "train_sft")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:  # a build leaves folders beside its sources
        if name.startswith(("openrlhf_cft/", "pyproject.toml", "setup.py", "README.md", "LICENSE")):
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), "./source"]
    subprocess.run(build, cwd=folder, check=True)
    (built,) = folder.glob("openrlhf_cft-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    return python


def run(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run its Python in a folder that has none of our sources."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_it_holds_every_file_of_the_package(wheel: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "openrlhf_cft"], cwd=ROOT, capture_output=True, text=True, check=True)
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("openrlhf_cft/")}
    assert packed == set(tracked.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help(python: Path, tmp_path: Path, command: str) -> None:
    made = run(python, tmp_path, "-m", f"openrlhf_cft.cli.{command}", "--help")
    ours = "--critical_mask" if command == "train_sft" else "usage: "
    assert ours in made.stdout, made.stderr
    if command == "train_sft":  # its other flags are those of OpenRLHF, which is not there
        assert made.returncode == 2 and made.stderr.startswith("train_sft: openrlhf is not installed: pip install")
    else:
        assert made.returncode == 0, made.stderr


def test_masks_view_and_verify(python: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "annotated", make_rows(20))
    make_tokenizer(tmp_path / "model")
    for arguments, said in [
        (("masks", "stats", "annotated"), "rows"),
        (("view", "annotated", "--terminal", "--model.model_name_or_path", "model"), "row"),
        (("view", "annotated", "--out", "page.html", "--model.model_name_or_path", "model"), "page.html"),
    ]:
        made = run(python, tmp_path, "-m", f"openrlhf_cft.cli.{arguments[0]}", *arguments[1:])
        assert made.returncode == 0 and said in made.stdout, (arguments, made.stdout, made.stderr)
    code = "import openrlhf_cft; print(openrlhf_cft.judge('so it is \\\\boxed{1/2}', '0.5').verdict)"
    made = run(python, tmp_path, "-c", code)
    assert made.stdout == "correct\n", made.stderr


def test_beside_an_openrlhf_that_works_no_version_changes(wheel: Path, tmp_path: Path) -> None:
    """The README's one line: it adds what is missing, and leaves what is there."""
    stubs = [make_wheel(tmp_path / "stubs", name, version, "") for name, version in WORKING.items()]
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "environment")], check=True)
    pip = [str(tmp_path / "environment" / "bin" / "python"), "-m", "pip"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", *map(str, stubs)], check=True)
    subprocess.run([*pip, "install", "--quiet", str(wheel)], check=True)
    listed = json.loads(subprocess.run([*pip, "list", "--format=json"], capture_output=True, text=True).stdout)
    versions = {entry["name"].replace("-", "_").lower(): entry["version"] for entry in listed}
    assert {name: versions.get(name) for name in WORKING} == WORKING
    assert {"openrlhf_cft", "matplotlib", "mpmath"} <= set(versions)
