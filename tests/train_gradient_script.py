"""Runs CFT through the stock script once a case and writes down the gradients it applied. Started by a launcher.

    deepspeed --num_gpus 2 train_gradient_script.py --cases cases.json --output results.pt

Nothing on the way to the gradient is replaced: flags, strategy, DeepSpeed, data set, actor and `fit` are those of a
real run. Gradients are read between the backward pass that completes a window and the optimizer step that uses them.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from typing import Any

import deepspeed
import torch
from deepspeed.utils import safe_get_full_grad
from openrlhf.utils.deepspeed import DeepspeedStrategy

from openrlhf_cft.train import stock
from openrlhf_cft.train.dataset import CriticalTokenDataset
from openrlhf_cft.train.trainer import CriticalTokenTrainer

Tensors = dict[str, torch.Tensor]
steps: list[dict[str, Any]] = []  # of the case that runs: what each optimizer step applied


def parameters(module: torch.nn.Module) -> Tensors:
    with deepspeed.zero.GatheredParameters(list(module.parameters())):
        return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def gradients(module: torch.nn.Module) -> Tensors:
    return {name: safe_get_full_grad(parameter).detach().clone() for name, parameter in module.named_parameters()}


def record_steps() -> None:
    """Put a reader on both sides of the optimizer step, and beside the logs."""
    optimizer_step, reduce_meter = DeepspeedStrategy.optimizer_step, CriticalTokenTrainer._reduce_meter

    def recording_step(self: Any, optimizer: Any, model: Any, scheduler: Any, **kwargs: Any) -> None:
        engine, boundary = model.model, model.model.is_gradient_accumulation_boundary()
        if boundary:
            steps.append({"gradients": gradients(engine.module), "before": parameters(engine.module)})
        optimizer_step(self, optimizer, model, scheduler, **kwargs)
        if boundary:
            steps[-1]["after"] = parameters(engine.module)

    def recording_reduce(self: Any) -> dict[str, float]:
        logs = reduce_meter(self)
        steps[-1]["logs"] = logs
        return logs

    DeepspeedStrategy.optimizer_step = recording_step
    CriticalTokenTrainer._reduce_meter = recording_reduce


def keep_rows_without_critical_tokens() -> None:
    """Real runs skip such rows; here they stand for the ranks, micro-batches and windows without a trained token."""
    CriticalTokenDataset._usable = lambda self, dataset: dataset


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--local_rank", type=int, default=-1)
    own = parser.parse_args()
    with open(own.cases) as file:
        cases = json.load(file)
    record_steps()
    keep_rows_without_critical_tokens()
    results = {}
    for case in cases:
        steps.clear()
        sys.argv[1:] = [f"--local_rank={own.local_rank}", *case["arguments"]]
        stock.run("openrlhf.cli.train_sft", "critical_mask")
        results[case["name"]] = list(steps)
        gc.collect()
    if torch.distributed.get_rank() == 0:
        torch.save(results, own.output)


if __name__ == "__main__":
    main()
