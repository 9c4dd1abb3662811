"""Which build of torch the set-up takes: real pip in a real environment, over small indexes on this machine."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "install.py"
CALL = """
import os, sys
sys.path.insert(0, sys.argv[1])
import install
install.LOCK = os.devnull  # which pins nothing
install.install_torch("9.9.1")
"""


def make_wheel(folder: Path, name: str, version: str, code: str, requires: str = "") -> Path:
    """A wheel of one module in `folder/name/`, which is a page of an index as soon as it is served."""
    page = folder / name
    page.mkdir(parents=True, exist_ok=True)
    wheel = page / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
        requires and f"Requires-Dist: {requires}\n"
    )
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        record = "".join(
            f"{path},sha256={hashlib.sha256(text.encode()).hexdigest()},\n" for path, text in files.items()
        )
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return wheel


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with three indexes, and its address: PyPI's torch with a library, CPU builds, and an empty one."""
    folder = tmp_path_factory.mktemp("indexes")
    make_wheel(folder / "pypi", "torch", "9.9.1", "import cudalibrary", "cudalibrary")
    make_wheel(folder / "pypi", "cudalibrary", "1.0", "")
    make_wheel(folder / "cpu", "torch", "9.9.1+cpu", "")
    make_wheel(folder / "broken", "torch", "9.9.1", "raise OSError('libcudart.so.13: cannot open shared object file')")
    (folder / "empty").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has pip and nothing else."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


@pytest.fixture
def fresh(environment: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(environment, tmp_path / "venv", symlinks=True)


def run(venv: Path, pypi: str, cpu_index: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`install_torch`, where pip's own index is `pypi`."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    mine |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    mine |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": pypi, "TORCH_CPU_INDEX": cpu_index, **variables}
    # A copied environment is entered through its configuration file, which lies beside its `python`.
    command = [venv / "bin" / "python", "-c", CALL, str(SCRIPT.parent)]
    return subprocess.run(command, env=mine, capture_output=True, text=True, check=False)


def version(venv: Path) -> str:
    """The version of torch that the environment imports."""
    code = "import torch; from importlib.metadata import version; print(version('torch'))"
    return subprocess.run(
        [venv / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_what_the_users_pip_finds_comes_first(indexes: tuple[Path, str], fresh: Path) -> None:
    folder, address = indexes
    found = {"PIP_FIND_LINKS": str(folder / "cpu" / "torch")}
    result = run(fresh, f"{address}/pypi", f"{address}/empty", **found)
    assert result.stdout == "setup: torch==9.9.1+cpu, which this machine's pip finds\n", result.stderr
    assert version(fresh) == "9.9.1+cpu"
    again = run(fresh, f"{address}/empty", f"{address}/empty", **found)
    assert (again.returncode, again.stdout) == (0, ""), "what is there is kept"


def test_then_the_index_of_cpu_builds(indexes: tuple[Path, str], fresh: Path) -> None:
    _, address = indexes
    result = run(fresh, f"{address}/pypi", f"{address}/cpu")
    assert result.stdout == f"setup: torch==9.9.1+cpu from {address}/cpu\n", result.stderr
    assert version(fresh) == "9.9.1+cpu"


def test_then_pypi_with_its_libraries(indexes: tuple[Path, str], fresh: Path) -> None:
    _, address = indexes
    result = run(fresh, f"{address}/pypi", f"{address}/empty")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("setup: torch==9.9.1 from PyPI: no torch==9.9.1+cpu was found and ")
    assert "a download of 3 GB and take 7 GB" in result.stdout and result.stdout.count("\n") == 1
    assert version(fresh) == "9.9.1", "it imports, so its library is there too"


def test_a_constraint_of_the_users_is_no_failure(indexes: tuple[Path, str], fresh: Path, tmp_path: Path) -> None:
    """pip calls a build that is not there a conflict then."""
    _, address = indexes
    (tmp_path / "constraints.txt").write_text("torch<=9.9.9\n")
    result = run(fresh, f"{address}/pypi", f"{address}/cpu", PIP_CONSTRAINT=str(tmp_path / "constraints.txt"))
    assert result.stdout == f"setup: torch==9.9.1+cpu from {address}/cpu\n", result.stderr
    assert version(fresh) == "9.9.1+cpu"


def test_an_index_that_never_answers_is_asked_once(indexes: tuple[Path, str], fresh: Path) -> None:
    """A firewall that drops packets: connections are accepted here, and nothing is ever said."""
    _, address = indexes
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        started = time.monotonic()
        result = run(fresh, f"{address}/pypi", f"http://127.0.0.1:{silent.getsockname()[1]}/cpu")
        seconds = time.monotonic() - started
        silent.setblocking(False)
        connections = 0
        while connections < 10:
            try:
                silent.accept()
            except BlockingIOError:
                break
            connections += 1
    assert result.returncode == 0, result.stderr
    assert "from PyPI" in result.stdout and "did not answer" in result.stdout
    assert connections <= 1, f"no second try; it took {seconds:.0f} s"


def test_a_torch_that_does_not_import_is_one_sentence(indexes: tuple[Path, str], fresh: Path) -> None:
    _, address = indexes
    result = run(fresh, f"{address}/broken", f"{address}/empty")
    assert result.returncode != 0
    assert "InstallError: torch 9.9.1 is installed and does not import (OSError: libcudart.so.13: " in result.stderr


def test_a_small_disk_is_refused_before_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    assert spec is not None and spec.loader is not None
    install = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(install)
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**11, 10**11, 4 * 10**9))
    with pytest.raises(install.InstallError, match=r"has 4\.0 GB free, and PyPI's build of torch needs 10 GB"):
        install.require_disk()
