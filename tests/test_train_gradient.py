"""The gradient that a CFT run applies equals autograd of sum(w * nll) / sum(w) on a plain model.

The run is the whole stock script under the DeepSpeed launcher in float32; the reference is transformers in float64,
one row at a time, without padding, packing, flags or hooks. Process counts, ZeRO stages, gradient accumulation,
packing, tied embeddings and empty places are combined so that pairs of settings occur, not the full product.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from train_helpers import launch, make_model, make_rows, tail, write_rows

from openrlhf_cft import records

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5  # relative error of a float32 gradient
MICRO_BATCH = 2
SEED = 42  # of the stock sampler
MAX_LENGTH = 24  # shorter than some rows: the cut is part of what is compared


@dataclass(frozen=True)
class Case:
    name: str
    processes: int
    zero: int
    accumulation: int
    packed: bool = False
    tied: bool = False
    empty: str = ""  # where no token is trained: rank, micro-batch or window
    floats: bool = False  # weights beyond 0 and 1
    more: tuple[str, ...] = ()

    @property
    def batch(self) -> int:
        return self.processes * self.accumulation * MICRO_BATCH


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
]


def windows(case: Case) -> list[list[list[int]]]:
    """Row indices by optimizer step and rank, as `openrlhf/utils/distributed_sampler.py` draws them."""
    rows = 2 * case.batch
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(SEED)).tolist()
    size = case.batch // case.processes
    ranks = [order[rank :: case.processes] for rank in range(case.processes)]
    return [[drawn[start : start + size] for drawn in ranks] for start in range(0, rows // case.processes, size)]


def empty_rows(case: Case) -> list[int]:
    """The rows of the first step that train nothing."""
    first = windows(case)[0]
    if case.empty == "window":
        return [index for drawn in first for index in drawn]
    if case.empty == "rank":
        return first[-1]
    return first[0][:MICRO_BATCH] if case.empty == "micro-batch" else []


def case_rows(case: Case) -> list[dict[str, Any]]:
    rows = make_rows(2 * case.batch, seed=len(case.name), floats=case.floats)
    for index in empty_rows(case):
        rows[index][records.MASK] = [0.0] * len(rows[index][records.MASK])
    return rows


def arguments(case: Case, folder: Path, model: Path) -> list[str]:
    dataset = write_rows(folder / case.name.replace(" ", "-").replace(",", ""), case_rows(case))
    flags = {
        "--model.model_name_or_path": model,
        "--data.dataset": dataset,
        "--data.max_len": MAX_LENGTH,
        "--train.batch_size": case.batch,
        "--train.micro_batch_size": MICRO_BATCH,
        "--train.max_epochs": 1,
        "--train.seed": SEED,
        "--ds.zero_stage": case.zero,
        "--ds.param_dtype": "fp32",
        "--ds.attn_implementation": "sdpa",
        "--lr_scheduler": "constant",  # so that the first step moves what it can
        "--adam.lr": 1e-2,
        "--ckpt.output_dir": folder / "out",
    }
    packing = ["--ds.packing_samples"] if case.packed else []
    return [str(part) for flag in flags.items() for part in flag] + packing + list(case.more)


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
        cases = [case for case in CASES if case.processes == processes]
        listed = [{"name": case.name, "arguments": arguments(case, folder, models[case.tied])} for case in cases]
        (folder / "cases.json").write_text(json.dumps(listed))
        script = Path(__file__).with_name("train_gradient_script.py")
        output = folder / "results.pt"
        result = launch([str(script), "--cases", str(folder / "cases.json"), "--output", str(output)], processes)
        assert result.returncode == 0, tail(result)
        return torch.load(output)

    return run


def reference(model_path: Path, rows: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Gradients and logs of sum(w * nll) / sum(w) over `rows`, by plain autograd in float64."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float64, attn_implementation="eager")
    total, weight, trained, response = torch.zeros((), dtype=torch.float64), 0.0, 0, 0
    for row in rows:
        ids = torch.tensor(row[records.PROMPT_IDS] + row[records.RESPONSE_IDS])[:MAX_LENGTH]
        log_probs = model(ids[None]).logits[0].log_softmax(-1)
        for position in range(len(row[records.PROMPT_IDS]), len(ids)):
            w = torch.tensor(row[records.MASK][position - len(row[records.PROMPT_IDS])], dtype=torch.float32).item()
            total = total - w * log_probs[position - 1, ids[position]]
            weight, trained, response = weight + w, trained + (w > 0), response + 1
    loss = total / weight
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    logs = {"critical_loss": loss.item(), "critical_tokens": trained, "critical_share": trained / response}
    return gradients, logs


def relative_error(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The larger of the error of all gradients as one vector, and that of the worst parameter of noticeable size."""
    assert found.keys() == wanted.keys()
    norms = {name: gradient.norm().item() for name, gradient in wanted.items()}
    errors = {name: (found[name].double() - wanted[name]).norm().item() for name in wanted}
    whole = sum(norm**2 for norm in norms.values()) ** 0.5
    worst = max(errors[name] / norm for name, norm in norms.items() if norm > 1e-3 * whole)
    return max(worst, sum(error**2 for error in errors.values()) ** 0.5 / whole)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradient_is_that_of_the_plain_formula(case: Case, models: dict[bool, Path], results: Any) -> None:
    steps = results(case.processes)[case.name]
    assert len(steps) == 2
    which = 1 if case.empty == "window" else 0  # an empty first step leaves the model as it was
    rows = case_rows(case)
    wanted, logs = reference(models[case.tied], [rows[i] for drawn in windows(case)[which] for i in drawn])
    error = relative_error(steps[which]["gradients"], wanted)
    print(f"{case.name}: relative error of the gradient {error:.1e}")
    assert error <= TOLERANCE
    assert steps[which]["logs"] == pytest.approx(logs, rel=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if case.empty == "window"], ids=lambda case: case.name)
def test_a_window_without_trained_tokens_changes_nothing(case: Case, results: Any) -> None:
    empty, following = results(case.processes)[case.name]
    assert all((gradient == 0).all() for gradient in empty["gradients"].values())
    assert all(torch.equal(empty["before"][name], empty["after"][name]) for name in empty["before"])
    assert empty["logs"] == {"critical_tokens": 0, "critical_share": 0}  # a loss over nothing is absent, not zero
    assert any(not torch.equal(following["before"][name], following["after"][name]) for name in following["before"])


def test_the_cases_cover_every_pair_of_settings() -> None:
    wanted = {(p, z) for p in (1, 2) for z in (0, 2, 3)}
    assert wanted <= {(case.processes, case.zero) for case in CASES}
    assert {(a, z) for a in (1, 3) for z in (0, 2, 3)} <= {(case.accumulation, case.zero) for case in CASES}
    assert {(k, z) for k in (False, True) for z in (0, 2, 3)} <= {(case.packed, case.zero) for case in CASES}
    assert {(k, p) for k in (False, True) for p in (1, 2)} <= {(case.packed, case.processes) for case in CASES}
    assert {(e, p) for e in ("micro-batch", "window") for p in (1, 2)} <= {(c.empty, c.processes) for c in CASES}
