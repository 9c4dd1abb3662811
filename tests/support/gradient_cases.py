"""One training run in many settings, and the gradient that the plain formula gives for it.

The run is the whole stock script under the DeepSpeed launcher in float32; the reference is transformers in float64,
one row at a time, without padding, packing, flags or hooks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from train_helpers import launch, make_rows, tail, write_rows

from openrlhf_cft.data import records

TOLERANCE = 1e-5  # relative error of a float32 gradient
SEED = 42  # of the stock sampler
LORA_RANK, LORA_ALPHA = 4, 16
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
    lora: bool = False
    dense: bool = False  # logits everywhere
    dft: bool = False
    micro_batch: int = 2  # rows
    seed: int | None = None  # of the rows; by default another for each case
    more: tuple[str, ...] = ()

    @property
    def batch(self) -> int:
        return self.processes * self.accumulation * self.micro_batch


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
    return first[0][: case.micro_batch] if case.empty == "micro-batch" else []


def case_rows(case: Case) -> list[dict[str, Any]]:
    rows = make_rows(2 * case.batch, seed=len(case.name) if case.seed is None else case.seed, floats=case.floats)
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
        "--train.micro_batch_size": case.micro_batch,
        "--train.max_epochs": 1,
        "--train.seed": SEED,
        "--ds.zero_stage": case.zero,
        "--ds.param_dtype": "fp32",
        "--ds.attn_implementation": "sdpa",
        "--lr_scheduler": "constant",  # so that the first step moves what it can
        "--adam.lr": 1e-2,
        "--ckpt.output_dir": folder / "out",
    }
    given = [str(part) for flag in flags.items() for part in flag] + list(case.more)
    given += ["--ds.packing_samples"] if case.packed else []
    given += ["--ds.lora.rank", str(LORA_RANK), "--ds.lora.alpha", str(LORA_ALPHA)] if case.lora else []
    given += ["--cft.dense_logits"] if case.dense else []
    return given + (["--cft.loss", "dft"] if case.dft else [])


def positions_with_logits(case: Case, step: int) -> list[int]:
    """For each micro-batch of rank 0 in a step, the positions at which logits are computed; none where all are."""
    if case.dense:
        return []
    rows = case_rows(case)
    trained = [
        sum(weight != 0 for weight in row[records.MASK][: max(0, MAX_LENGTH - len(row[records.PROMPT_IDS]))])
        for row in (rows[index] for index in windows(case)[step][0])
    ]
    return [sum(trained[i : i + case.micro_batch]) for i in range(0, len(trained), case.micro_batch)]


def run_cases(cases: Sequence[Case], folder: Path, models: dict[bool, Path]) -> dict[str, list[dict[str, Any]]]:
    """Run all cases, which have the same number of processes, by one launch; their optimizer steps by name."""
    listed = [{"name": case.name, "arguments": arguments(case, folder, models[case.tied])} for case in cases]
    (folder / "cases.json").write_text(json.dumps(listed))
    script = Path(__file__).with_name("train_gradient_script.py")
    output = folder / "results.pt"
    flags = ["--cases", str(folder / "cases.json"), "--output", str(output)]
    result = launch([str(script), *flags], cases[0].processes, timeout=1500)
    assert result.returncode == 0, tail(result)
    return torch.load(output)


def reference(
    model_path: Path, rows: list[dict[str, Any]], case: Case, before: dict[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Gradients and logs of sum(w * nll) / sum(w) over `rows`, by plain autograd in float64, from parameters `before`.

    With `dft` the gradient is that of sum(w * p * nll) / sum(w), where p is a number.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float64, attn_implementation="eager")
    if case.lora:
        model = get_peft_model(model, LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear"))
        model = model.double()
    assert before.keys() == dict(model.named_parameters()).keys()
    model.load_state_dict(before, strict=False)  # strict fails on tied embeddings, which are there once
    objective = torch.zeros((), dtype=torch.float64)
    total, weight, trained, response = torch.zeros((), dtype=torch.float64), 0.0, 0, 0
    for row in rows:
        ids = torch.tensor(row[records.PROMPT_IDS] + row[records.RESPONSE_IDS])[:MAX_LENGTH]
        log_probs = model(ids[None]).logits[0].log_softmax(-1)
        for position in range(len(row[records.PROMPT_IDS]), len(ids)):
            w = torch.tensor(row[records.MASK][position - len(row[records.PROMPT_IDS])], dtype=torch.float32).item()
            log_prob = log_probs[position - 1, ids[position]]
            total = total - w * log_prob
            objective = objective - w * log_prob * (log_prob.exp().item() if case.dft else 1)
            weight, trained, response = weight + w, trained + (w > 0), response + 1
    (objective / weight).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    logs = {"critical_loss": (total / weight).item(), "critical_tokens": trained, "critical_share": trained / response}
    return gradients, logs


def relative_error(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The larger of the error of all gradients as one vector, and that of the worst parameter of noticeable size."""
    assert found.keys() == wanted.keys()
    norms = {name: gradient.norm().item() for name, gradient in wanted.items()}
    errors = {name: (found[name].double() - wanted[name]).norm().item() for name in wanted}
    whole = sum(norm**2 for norm in norms.values()) ** 0.5
    worst = max(errors[name] / norm for name, norm in norms.items() if norm > 1e-3 * whole)
    return max(worst, sum(error**2 for error in errors.values()) ** 0.5 / whole)
