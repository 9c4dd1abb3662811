"""What the set-up asks of a machine before it downloads anything: all that is missing, in one message."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "check_system.py"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def check() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("check_system", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def message(check: ModuleType, monkeypatch: pytest.MonkeyPatch, *flags: str) -> str:
    """What the script ends with."""
    monkeypatch.setattr(sys, "argv", ["check_system.py", *flags])
    with pytest.raises(SystemExit) as ended:
        check.main()
    return str(ended.value.code)


def test_a_machine_that_is_fit_gets_no_word(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(check, "loads", lambda library: True)
    monkeypatch.setattr(check.sysconfig, "get_config_var", lambda name: make_headers())
    monkeypatch.setattr(check, "memory_gib", lambda: 16.0)
    monkeypatch.setattr(check.shutil, "disk_usage", lambda _: Usage(1 << 40, 0, 1 << 40))
    monkeypatch.setattr(sys, "argv", ["check_system.py"])
    check.main()
    assert capsys.readouterr() == ("", "")


def make_headers() -> str:
    """A folder with Python.h."""
    folder = tempfile.mkdtemp()
    (Path(folder) / "Python.h").touch()
    return folder


def test_an_installed_environment_is_asked_only_for_what_runs(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, which has its packages, and whose shared memory is known only when it runs."""
    monkeypatch.setattr(check.shutil, "which", lambda name: None)
    monkeypatch.setattr(check, "memory_gib", lambda: 2.0)
    text = message(check, monkeypatch, "--installed", "--venv", sys.prefix)
    assert "of memory" in text and "compiler" not in text


def test_all_that_is_missing_is_one_message_with_both_commands(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check.shutil, "which", lambda name: None)
    monkeypatch.setattr(check, "loads", lambda library: False)
    monkeypatch.setattr(check.sysconfig, "get_config_var", lambda name: "/nonexistent")
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    text = message(check, monkeypatch)
    for words in (
        "a C++ compiler",
        "make: ",
        "git: ",
        "Python.h of /usr/bin/python3",
        "venv and ensurepip",
        "lscpu: ",
    ):
        assert words in text
    assert "libnuma.so.1: vLLM's engine for CPUs loads it" in text
    debian, fedora = text.splitlines()[-2:]
    assert debian == ("Debian, Ubuntu: sudo apt-get install g++ make git python3-dev python3-venv libnuma1 util-linux")
    assert fedora == ("Fedora: sudo dnf install gcc-c++ make git python3-devel python3-pip numactl-libs util-linux")
    monkeypatch.setattr(check, "gpu_faults", lambda: [])
    assert "libnuma" not in message(check, monkeypatch, "--gpu"), "vLLM for GPUs does without"


def test_a_python_without_its_standard_library_is_one_sentence(tmp_path: Path) -> None:
    """As Debian's python3-minimal."""
    (tmp_path / "shutil.py").write_text("raise ImportError(name='shutil')")
    command = [
        sys.executable,
        "-c",
        f"import runpy, sys; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_path({str(SCRIPT)!r})",
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert (
        result.stderr.startswith(f"setup: {sys.executable} has no module shutil, ") and result.stderr.count("\n") == 1
    )


def test_packages_of_the_python_that_was_named(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.sysconfig, "get_config_var", lambda name: "/nonexistent")
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3.12")
    monkeypatch.setattr(check, "loads", lambda library: True)
    assert "sudo apt-get install python3.12-dev\n" in message(check, monkeypatch)


@pytest.mark.parametrize("version", [(3, 9, 2), (3, 14, 0)])
def test_another_python(check: ModuleType, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]) -> None:
    text = ".".join(map(str, version))
    monkeypatch.setattr(sys, "version_info", version)
    expected = f"is Python {text}, and 3.10 to 3.13 are supported: name another one, for instance `make PYTHON="
    assert expected in message(check, monkeypatch)


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Windows", "AMD64"), ("Linux", "riscv64")])
def test_another_system_gets_one_sentence(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, system: str, machine: str
) -> None:
    monkeypatch.setattr(check.platform, "system", lambda: system)
    monkeypatch.setattr(check.platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "platform", {"Darwin": "darwin", "Windows": "win32"}.get(system, "linux"))
    text = message(check, monkeypatch)
    assert f"{system} on {machine}: annotation, training and evaluation need Linux on x86-64 or aarch64" in text
    assert "apt-get" not in text


def test_a_container_with_little_shared_memory(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check.shutil, "disk_usage", lambda _: Usage(1 << 26, 0, 1 << 26))
    (fault,) = check.shared_memory_faults(tmp_path)
    assert fault.startswith(
        f"{tmp_path} has 0.06 GiB free, and 1 GiB is needed: docker build and docker run take --shm-size=2g"
    )
    (fault,) = check.shared_memory_faults(tmp_path / "absent")
    assert "is not there or not writable" in fault


def test_a_small_disk_and_little_memory(check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.shutil, "disk_usage", lambda _: Usage(1 << 40, 0, 3 << 30))
    monkeypatch.setattr(check, "memory_gib", lambda: 3.5)
    text = message(check, monkeypatch, "--venv", str(tmp_path / "deep" / "venv"))
    assert f"{tmp_path} has 3.0 GiB free, and the environment needs 6 GiB" in text
    assert "this machine has 3.5 GiB of memory, and training needs " in text


def test_a_library_that_is_not_there(check: ModuleType) -> None:
    assert check.loads("libc.so.6") and not check.loads("libnowhere.so.1")
    assert shutil.which("lscpu") is not None, "what this test file takes for granted"
