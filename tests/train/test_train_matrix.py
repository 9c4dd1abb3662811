"""The full matrix: the same twelve rows a step give the same gradient however they are sharded, cut up and computed.

{ZeRO 0, 2, 3} x {1, 2 processes} x {plain, LoRA, packed} x {sparse in one batch, accumulated, dense}. All cells of one
kind are compared with one float64 reference, and with one another. `make test` has a pairwise cover of it in
`test_train_gradient.py`.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from gradient_cases import (
    TOLERANCE,
    Case,
    case_rows,
    positions_with_logits,
    reference,
    relative_error,
    run_cases,
    windows,
)
from train_helpers import make_model

pytestmark = [pytest.mark.all, pytest.mark.slow, pytest.mark.timeout(3600)]

ROWS = 12  # a step
KINDS: dict[str, dict[str, bool]] = {"plain": {}, "LoRA": {"lora": True}, "packed": {"packed": True}}
WAYS: dict[str, tuple[int, bool]] = {"one batch": (1, False), "accumulated": (3, False), "dense": (1, True)}


def make_case(processes: int, zero: int, kind: str, way: str) -> Case:
    accumulation, dense = WAYS[way]
    name = f"{processes} processes, zero {zero}, {kind}, {way}"
    micro_batch = ROWS // processes // accumulation
    return Case(
        name, processes, zero, accumulation, dense=dense, micro_batch=micro_batch, seed=0, floats=True, **KINDS[kind]
    )


CASES = {kind: [make_case(*cell[:2], kind, cell[2]) for cell in product((1, 2), (0, 2, 3), WAYS)] for kind in KINDS}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def results(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def run(kind: str, processes: int) -> dict[str, list[dict[str, Any]]]:
        cases = [case for case in CASES[kind] if case.processes == processes]
        return run_cases(cases, tmp_path_factory.mktemp("cases"), {False: model})

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_has_the_gradient_of_the_plain_formula_and_so_of_every_other(
    kind: str, model: Path, results: Any
) -> None:
    which = 1 if kind == "LoRA" else 0  # the first step of LoRA has no gradient for half of it
    first, *others = CASES[kind]
    rows = [case_rows(first)[i] for drawn in windows(first)[which] for i in drawn]
    steps = {case.name: results(kind, case.processes)[case.name][which] for case in CASES[kind]}
    for case in CASES[kind]:
        assert sorted(i for drawn in windows(case)[which] for i in drawn) == sorted(windows(first)[which][0])
        step = steps[case.name]
        wanted, logs = reference(model, rows, case, step["before"])
        error = relative_error(step["gradients"], wanted)
        print(f"{case.name}: relative error of the gradient {error:.1e}")
        assert error <= TOLERANCE, case.name
        assert step["logs"] == pytest.approx(logs, rel=1e-5)
        assert step["logits"] == positions_with_logits(case, which)
    if which == 0:  # from the same parameters, too
        for case in others:
            error = relative_error(steps[case.name]["gradients"], steps[first.name]["gradients"])
            assert error <= TOLERANCE, case.name
