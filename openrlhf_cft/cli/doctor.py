"""`python -m openrlhf_cft.cli.doctor`: what this machine and environment have, and what the main job lacks.

With `--model` also whether it fits, and what annotating costs at best.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from openrlhf_cft.cli.flags import Parser, run_command
from openrlhf_cft.doctor.finding import Finding
from openrlhf_cft.doctor.fit import fit
from openrlhf_cft.doctor.machine import GIB, machine, memory_bytes
from openrlhf_cft.doctor.nvidia import gpus
from openrlhf_cft.doctor.packages import packages
from openrlhf_cft.engine.platform import uses_gpu
from openrlhf_cft.errors import InputError

EXAMPLE = "python -m openrlhf_cft.cli.doctor --model Qwen/Qwen2.5-7B-Instruct --gpu H100 --gpu_memory 80"


def parser() -> argparse.ArgumentParser:
    """All flags of the command."""
    flags = Parser(prog="doctor", description=__doc__, example=EXAMPLE)
    flags.add_argument("--model", default=None, help="also say whether this model fits, by path or hub name")
    flags.add_argument("--gpus", type=int, default=1, help="of an engine, --vllm.tensor_parallel_size")
    flags.add_argument("--rows", type=int, default=1000, help="rows to estimate annotation for")
    flags.add_argument("--response", type=int, default=200, help="tokens of a response")
    flags.add_argument("--context", type=int, default=1024, help="tokens of prompt and response")
    flags.add_argument("--gpu", default=None, metavar="NAME", help="estimate for such a card, for instance H100")
    flags.add_argument("--gpu_memory", type=float, default=None, metavar="GIB", help="memory of such a card")
    return flags


def screen(findings: Sequence[Finding]) -> str:
    """A line for each finding, and one more for each problem."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        mark = " " if not finding.problem else "!" if finding.fatal else "?"
        lines.append(f"{mark} {finding.name:<{width}}  {finding.value}")
        if finding.problem:
            remedy = f": {finding.remedy}" if finding.remedy else ""
            lines.append(f"  {'':<{width}}  {finding.problem}{remedy}")
    return "\n".join(lines)


def doctor() -> int:
    """Print what was found; 1 where the main job cannot run."""
    flags = parser().parse_args()
    for name in ("gpus", "rows", "response", "context"):
        if getattr(flags, name) < 1:
            raise InputError(f"--{name}: {getattr(flags, name)} must be at least 1")
    gpu = uses_gpu()
    findings = [*packages(gpu), *machine(gpu)]
    if flags.model is not None:
        name, memory = _card(flags.gpu, flags.gpu_memory, gpu)
        findings += fit(flags.model, flags.gpus, memory, name, flags.rows, flags.response, flags.context)
    print(screen(findings))
    fatal = [finding.name for finding in findings if finding.problem and finding.fatal]
    print(
        f"doctor: annotation and training cannot run yet, see {', '.join(fatal)}" if fatal else "doctor: all is well"
    )
    return 1 if fatal else 0


def _card(name: str | None, memory: float | None, gpu: bool) -> tuple[str, float]:
    """Name and memory in GiB of the GPU that is asked about: the first one here, where none is named."""
    there = gpus() if gpu else []
    if there and name is None:
        return there[0][0], memory or there[0][1]
    if name is not None:
        if memory is None:
            raise InputError(f"--gpu {name}: give its memory too, --gpu_memory 80")
        return name, memory
    if memory is not None:
        raise InputError(f"--gpu_memory {memory:g}: there is no GPU here; name the one that you mean with --gpu")
    return "CPU", memory_bytes() / GIB


def main() -> None:
    run_command("doctor", doctor, resumes=False)


if __name__ == "__main__":
    main()
