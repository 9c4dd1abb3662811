"""How many questions the quickstart takes, so that it ends within 15 minutes on this machine.

    eval "$(python examples/quickstart_size.py)"      # sets TRAIN_ROWS and TEST_ROWS

It measures for about five seconds how fast one thread imports PyTorch, and how fast all threads multiply matrices.
Starts of engines and trainings wait for imports. TRAIN_ROWS and TEST_ROWS that are set stay as they are.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

from batch_size import variable

from openrlhf_cft.engine.platform import has_fast_bfloat16, uses_gpu

TRAIN_ROWS, TEST_ROWS = 160, 48  # on a machine that is fast enough
LIMIT = 900.0  # seconds that the quickstart may take after the set-up
SHARES = (1.0, 0.75, 0.5, 0.25)  # of the questions
TRIES = 2  # imports that are timed: the first one may read the files from a disk


@dataclass(frozen=True)
class Machine:
    """The seconds that a machine takes for a unit of each kind of work."""

    importing: float  # PyTorch, by one thread
    products: float  # `products_seconds`, by all threads


# Where the quickstart was timed, on 2 cores with AVX-512 in December 2026. It took 607 s there, and 298 s with a
# quarter of the questions. With AVX2 instead, products took 2.5 times as long, and the quickstart 96 s more.
REFERENCE = Machine(importing=1.5, products=0.066)
STARTS = 200.0  # its seconds that do not depend on the number of questions
ROWS, PRODUCTS = 340.0, 70.0  # for all questions: those that the threads' pace and the products decide


def expected(machine: Machine, share: float) -> float:
    """The seconds that the quickstart takes with a share of the questions."""
    thread = machine.importing / REFERENCE.importing
    return (STARTS + share * ROWS) * thread + share * PRODUCTS * machine.products / REFERENCE.products


def share_for(machine: Machine) -> float:
    """The largest share of the questions with which the quickstart ends in time, or else the smallest one."""
    return next((share for share in SHARES if expected(machine, share) <= LIMIT), SHARES[-1])


def measure() -> Machine:
    """Measure this machine."""
    return Machine(min(import_seconds() for _ in range(TRIES)), products_seconds())


def import_seconds() -> float:
    """One import of PyTorch, in a process of its own."""
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.monotonic() - begin


def products_seconds() -> float:
    """Products as SmolLM2-135M has them in a step of 256 tokens, in the type in which the quickstart computes."""
    import torch

    dtype = torch.bfloat16 if has_fast_bfloat16() else torch.float32
    states, up, down = (torch.randn(shape, dtype=dtype) for shape in ((256, 576), (576, 1536), (1536, 576)))
    begin, fastest = time.monotonic(), float("inf")
    while time.monotonic() < begin + 1:
        start = time.perf_counter()
        for _ in range(30):
            states @ up @ down
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


def main() -> None:
    """Choose, and print shell assignments."""
    train, test = variable("TRAIN_ROWS"), variable("TEST_ROWS")
    share = 1.0
    if not uses_gpu() and (train is None or test is None):
        machine = measure()
        share = share_for(machine)
        if share < 1:
            tell(machine, share)
    print(f"TRAIN_ROWS={train or int(share * TRAIN_ROWS)} TEST_ROWS={test or int(share * TEST_ROWS)}")


def tell(machine: Machine, share: float) -> None:
    """Say what was reduced, and why."""
    few, all_of_them = (expected(machine, part) / 60 for part in (share, 1))
    print(
        f"quickstart: {share:.0%} of the questions, to end in about {few:.0f} minutes and not in "
        f"{all_of_them:.0f}: this machine imports PyTorch in {machine.importing:.1f} s "
        f"({REFERENCE.importing:.1f} s where the quickstart was timed), and its matrix products take "
        f"{machine.products / REFERENCE.products:.1f} times as long; TRAIN_ROWS={TRAIN_ROWS} TEST_ROWS={TEST_ROWS} "
        "RUN=runs/all make quickstart takes all questions",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
