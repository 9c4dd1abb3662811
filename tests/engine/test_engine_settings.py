"""What an engine is started with: its GPUs, its processes, and vLLM's defaults for throughput."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from train_helpers import make_model

from openrlhf_cft.engine import vllm_engine
from openrlhf_cft.engine.vllm_engine import EngineSettings, VllmGenerator
from openrlhf_cft.errors import EngineError, InputError


@pytest.mark.parametrize(
    ("tensor", "engine_args", "gpus"),
    [
        (1, {}, 1),
        (4, {}, 4),
        (2, {"pipeline_parallel_size": 3}, 6),
        (1, {"tensor_parallel_size": 8}, 8),  # the user's JSON wins
        (2, {"data_parallel_size": 1}, 2),
    ],
)
def test_gpus_of_an_engine(tensor: int, engine_args: dict[str, Any], gpus: int) -> None:
    settings = EngineSettings("m", tensor_parallel_size=tensor, engine_args=engine_args)
    assert settings.gpus == gpus
    # In a placement group vLLM would take Ray for more than one.
    assert settings.resolved().get("distributed_executor_backend") == ("mp" if gpus > 1 else None)


def test_the_users_own_backend_stays() -> None:
    settings = EngineSettings("m", tensor_parallel_size=2, engine_args={"distributed_executor_backend": "ray"})
    assert settings.resolved()["distributed_executor_backend"] == "ray"


@pytest.mark.parametrize(
    ("tensor", "engine_args", "told"),
    [
        (0, {}, "--vllm.tensor_parallel_size: 0 must be at least 1"),
        (1, {"data_parallel_size": 2}, "data_parallel_size 2 would start several .* --vllm.num_engines"),
        (1, {"pipeline_parallel_size": 0}, "--vllm.engine_args: pipeline_parallel_size 0 is no number from 1 on"),
        (1, {"pipeline_parallel_size": "2"}, "pipeline_parallel_size '2' is no number"),
        (1, {"tensor_parallel_size": 1.5}, "tensor_parallel_size 1.5 is no number"),
    ],
)
def test_numbers_that_are_none(tensor: int, engine_args: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        EngineSettings("m", tensor_parallel_size=tensor, engine_args=engine_args)


@pytest.mark.parametrize("gpu", [True, False])
def test_a_gpu_gets_the_defaults_of_offline_use(gpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine starts: what it would be started for, and what vLLM itself has as the defaults of that on 80 GB."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    contexts: list[UsageContext] = []

    def from_engine_args(engine_args: AsyncEngineArgs, usage_context: UsageContext) -> None:
        contexts.append(usage_context)
        raise RuntimeError("seen")

    monkeypatch.setattr(AsyncLLM, "from_engine_args", from_engine_args)
    monkeypatch.setattr(vllm_engine, "uses_gpu", lambda: gpu)
    settings = EngineSettings(str(make_model(tmp_path / "model")))
    with pytest.raises(EngineError, match="seen"):
        VllmGenerator(settings)
    device = type(current_platform)
    monkeypatch.setattr(device, "get_device_total_memory", classmethod(lambda *_: 80 << 30))
    monkeypatch.setattr(device, "get_device_name", classmethod(lambda *_: "NVIDIA H100 80GB HBM3"))
    monkeypatch.setattr(device, "is_cpu", lambda *_: False)
    tokens, sequences = AsyncEngineArgs(settings.model).get_batch_defaults(1)
    if gpu:
        assert (tokens[contexts[0]], sequences[contexts[0]]) == (16384, 1024)
    else:
        assert contexts[0] not in sequences, "vLLM's own defaults, as measured"
