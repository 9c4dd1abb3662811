"""Engines that share a GPU: which may, how much memory each takes, and that they start one after another."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
from train_helpers import make_model

from openrlhf_cft.cli.annotate import parser
from openrlhf_cft.cli.flags import engine_settings, pool_settings
from openrlhf_cft.engine import gpu_share, vllm_engine
from openrlhf_cft.engine.vllm_engine import EngineSettings


def test_the_memory_of_a_gpu_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = {"max_num_seqs": 7, "gpu_memory_utilization": 0.6}
    engine = EngineSettings("model", gpu_memory_utilization=0.8)
    assert engine.resolved()["gpu_memory_utilization"] == 0.8
    monkeypatch.setenv(gpu_share.GPU_SHARE, "0.25")
    assert engine.resolved()["gpu_memory_utilization"] == pytest.approx(0.2)
    own = EngineSettings("model", engine_args=shared).resolved()
    assert own["gpu_memory_utilization"] == pytest.approx(0.15) and own["max_num_seqs"] == 7
    assert shared["gpu_memory_utilization"] == 0.6


@pytest.mark.parametrize(
    ("gpu", "small", "engines", "tensor", "may"),
    [
        (True, True, "2", "1", True),
        (False, True, "2", "1", False),
        (True, False, "2", "1", False),
        (True, True, "1", "1", False),
        (True, True, "2", "2", False),
    ],
)
def test_only_small_models_share(
    gpu: bool, small: bool, engines: str, tensor: str, may: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "uses_gpu", lambda: gpu)
    monkeypatch.setattr(vllm_engine, "SMALL", 10**9 if small else 1000)
    model = str(make_model(tmp_path / "model"))
    flags = ["--model.model_name_or_path", model, "--data.dataset", "x", "--ckpt.output_dir", "y"]
    flags += ["--vllm.num_engines", engines, "--vllm.tensor_parallel_size", tensor]
    given = vars(parser().parse_args(flags))
    assert pool_settings(given, engine_settings(given, model)).may_share_gpus is may


def test_a_model_that_only_vllm_knows_has_its_gpu_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "uses_gpu", lambda: True)
    model = make_model(tmp_path / "model")
    assert EngineSettings(str(model)).may_share_gpus
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "strange"}))
    assert not EngineSettings(str(model)).may_share_gpus


def start(times: Any, share: str, gpu: str) -> None:
    import os

    os.environ |= {gpu_share.GPU_SHARE: share, "CUDA_VISIBLE_DEVICES": gpu}
    with gpu_share.starting_alone():
        began = time.monotonic()
        time.sleep(0.3)
        times.put((began, time.monotonic()))


@pytest.mark.parametrize(
    ("share", "gpus", "apart"),
    [("0.5", ("3", "3"), True), ("0.5", ("MIG-1/0", "MIG-1/0"), True), ("1", ("3", "3"), None)],
)
def test_engines_on_one_gpu_start_one_after_another(
    share: str, gpus: tuple[str, str], apart: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    context = multiprocessing.get_context("spawn")
    times = context.Queue()
    engines = [context.Process(target=start, args=(times, share, gpu)) for gpu in gpus]
    for engine in engines:
        engine.start()
    (_, first), (second, _) = sorted(times.get(timeout=300) for _ in gpus)
    for engine in engines:
        engine.join()
    if apart:
        assert first <= second
    assert bool(list(tmp_path.glob("openrlhf_cft-*.lock"))) is bool(apart)
