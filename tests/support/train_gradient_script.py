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
from openrlhf.trainer.sft_trainer import SFTTrainer
from openrlhf.utils.deepspeed import DeepspeedStrategy

from openrlhf_cft.cli.train_sft import STOCK_SCRIPT, split_flags
from openrlhf_cft.engine.logits import SelectedLogits
from openrlhf_cft.train import dataset, stock

Tensors = dict[str, torch.Tensor]
gathered: list[int] = []  # positions with logits, by forward since the last step; none where logits are dense
steps: list[dict[str, Any]] = []  # of the case that runs: what each optimizer step applied


def parameters(module: torch.nn.Module) -> Tensors:
    with deepspeed.zero.GatheredParameters(list(module.parameters())):
        return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def gradients(module: torch.nn.Module) -> Tensors:
    trainable = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    return {name: safe_get_full_grad(parameter).detach().clone() for name, parameter in trainable}


def record_steps() -> None:
    """Put a reader on both sides of the optimizer step, and beside the logs."""
    gather = SelectedLogits._gather
    optimizer_step, save_logs = DeepspeedStrategy.optimizer_step, SFTTrainer.save_logs_and_checkpoints

    def recording_gather(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        found = gather(self, hidden)
        gathered.append(found.shape[1])
        return found

    def recording_step(self: Any, optimizer: Any, model: Any, scheduler: Any, **kwargs: Any) -> None:
        engine, boundary = model.model, model.model.is_gradient_accumulation_boundary()
        if boundary:
            steps.append({"gradients": gradients(engine.module), "before": parameters(engine.module)})
            steps[-1]["logits"] = list(gathered)
            gathered.clear()
        optimizer_step(self, optimizer, model, scheduler, **kwargs)
        if boundary:
            steps[-1]["after"] = parameters(engine.module)

    def recording_logs(self: Any, args: Any, global_step: int, bar: Any, logs_dict: Any, states: Any) -> None:
        steps[-1]["logs"] = {name: value for name, value in logs_dict.items() if name.startswith("critical")}
        save_logs(self, args, global_step, bar, logs_dict, states)

    SelectedLogits._gather = recording_gather
    DeepspeedStrategy.optimizer_step = recording_step
    SFTTrainer.save_logs_and_checkpoints = recording_logs


def keep_rows_without_critical_tokens() -> None:
    """Real runs skip such rows; here they stand for the ranks, micro-batches and windows without a trained token."""
    dataset._select = lambda rows, which_R: rows


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
        options, others = split_flags(["--critical_mask", *case["arguments"]])
        assert options is not None
        sys.argv[1:] = [f"--local_rank={own.local_rank}", *others]
        stock.run(STOCK_SCRIPT, options)
        results[case["name"]] = list(steps)
        gc.collect()
    if torch.distributed.get_rank() == 0:
        torch.save(results, own.output)


if __name__ == "__main__":
    main()
