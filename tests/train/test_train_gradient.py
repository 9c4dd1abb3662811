"""The gradient that a CFT run applies equals autograd of sum(w * nll) / sum(w) on a plain model.

Process counts, ZeRO stages, accumulation, packing, LoRA, logits, tied embeddings and empty places are combined
so that pairs of settings occur, not the full product (that is `test_train_matrix.py`).
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch
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

pytestmark = pytest.mark.slow

CASES = [
    Case("zero 0", 1, 0, 1),
    Case("zero 2, accumulated, packed, tied", 1, 2, 3, packed=True, tied=True, floats=True),
    Case("zero 3, accumulated, empty micro-batch", 1, 3, 3, tied=True, empty="micro-batch"),
    Case("zero 0, accumulated, packed, empty window", 1, 0, 3, packed=True, empty="window", floats=True),
    Case("zero 3, packed, checkpointed", 1, 3, 1, packed=True, more=("--model.gradient_checkpointing_enable",)),
    Case("zero 2, empty window", 1, 2, 1, tied=True, empty="window"),
    Case("2 ranks, zero 2, packed", 2, 2, 1, packed=True),
    Case("2 ranks, zero 3, accumulated, empty rank, tied", 2, 3, 3, tied=True, empty="rank", floats=True),
    Case("2 ranks, zero 0, accumulated, packed, empty rank", 2, 0, 3, packed=True, empty="rank"),
    Case("2 ranks, zero 3, packed, empty window", 2, 3, 1, packed=True, empty="window"),
    Case("2 ranks, zero 2, accumulated, empty micro-batch", 2, 2, 3, empty="micro-batch", floats=True),
    Case("2 ranks, zero 0, tied, empty window", 2, 0, 1, tied=True, empty="window"),
    Case("2 ranks, zero 3, packed, empty rank", 2, 3, 1, packed=True, tied=True, empty="rank"),
    Case(
        "zero 2, LoRA, accumulated, checkpointed", 1, 2, 3, lora=True, more=("--model.gradient_checkpointing_enable",)
    ),
    Case("zero 0, LoRA, dense, tied", 1, 0, 1, lora=True, dense=True, tied=True),
    Case("zero 3, dense, packed, dft", 1, 3, 1, packed=True, dense=True, dft=True, floats=True),
    Case("2 ranks, zero 3, LoRA, packed, dft", 2, 3, 1, lora=True, packed=True, dft=True),
    Case("2 ranks, zero 2, dense, accumulated", 2, 2, 3, dense=True, floats=True),
    Case("2 ranks, zero 0, LoRA, accumulated, empty rank", 2, 0, 3, lora=True, empty="rank"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {tied: make_model(folder / f"tied-{tied}", tied=tied) for tied in (False, True)}


@pytest.fixture(scope="module")
def results(models: dict[bool, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All cases of one process count, run by one launch."""

    @cache
    def run(processes: int) -> dict[str, list[dict[str, Any]]]:
        folder = tmp_path_factory.mktemp(f"processes-{processes}")
        return run_cases([case for case in CASES if case.processes == processes], folder, models)

    return run


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradient_is_that_of_the_plain_formula(case: Case, models: dict[bool, Path], results: Any) -> None:
    steps = results(case.processes)[case.name]
    assert len(steps) == 2
    which = 1 if case.empty == "window" or case.lora else 0  # the first step of LoRA has no gradient for half of it
    rows = [case_rows(case)[i] for drawn in windows(case)[which] for i in drawn]
    wanted, logs = reference(models[case.tied], rows, case, steps[which]["before"])
    error = relative_error(steps[which]["gradients"], wanted)
    print(f"{case.name}: relative error of the gradient {error:.1e}")
    assert error <= TOLERANCE
    assert steps[which]["logits"] == positions_with_logits(case, which)
    assert steps[which]["logs"] == pytest.approx(logs, rel=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if case.empty == "window"], ids=lambda case: case.name)
def test_a_window_without_trained_tokens_changes_nothing(case: Case, results: Any) -> None:
    empty, following = results(case.processes)[case.name]
    assert all((gradient == 0).all() for gradient in empty["gradients"].values())
    assert all(torch.equal(empty["before"][name], empty["after"][name]) for name in empty["before"])
    assert empty["logs"] == {"critical_tokens": 0, "critical_share": 0}  # a loss over nothing is absent, not zero
    assert any(not torch.equal(following["before"][name], following["after"][name]) for name in following["before"])


def test_the_cases_cover_every_pair_of_settings() -> None:
    settings = [(c.processes, c.zero, c.accumulation > 1, c.packed, c.lora, c.dense, c.tied) for c in CASES]
    values: list[tuple[Any, ...]] = [(1, 2), (0, 2, 3), *[(False, True)] * 5]
    for one, other in combinations(range(len(values)), 2):
        wanted = set(product(values[one], values[other]))
        assert wanted <= {(setting[one], setting[other]) for setting in settings}, (one, other)
    assert {(e, p) for e in ("micro-batch", "window") for p in (1, 2)} <= {(c.empty, c.processes) for c in CASES}
