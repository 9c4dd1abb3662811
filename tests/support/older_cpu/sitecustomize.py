"""Makes vLLM take its kernels for CPUs without AVX-512 on a CPU that has it. Python imports this file by its name.

    export ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
    PYTHONPATH=tests/support/older_cpu make quickstart

PyTorch and its libraries have variables for that. vLLM asks PyTorch what the processor has, so PyTorch's answers are
changed, just before the module is imported that asks.
"""

import sys
from importlib.abc import MetaPathFinder
from types import ModuleType

ANSWERS = ("_is_avx512_supported", "_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_amx_fp16_supported")


class OlderCpu(MetaPathFinder):
    """Finds no module, but is asked for each."""

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> None:
        """Change the answers when vLLM's module for CPUs is looked for."""
        if name == "vllm.platforms.cpu":
            import torch

            for answer in ANSWERS:
                assert hasattr(torch.cpu, answer), answer
                setattr(torch.cpu, answer, lambda: False)


sys.meta_path.insert(0, OlderCpu())
