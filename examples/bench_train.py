"""A training step of stock SFT against one of CFT: time, memory, gradient. `make bench-train`; the last line is JSON.

    python examples/bench_train.py --model PATH                        a checkpoint
    python examples/bench_train.py --model PATH --random qwen2.5-0.5b  that shape, random weights, PATH's tokenizer
    ... --random qwen2.5-0.5b --layers 12 --no_trl                     what 24 GB hold: all arms are in memory at once

The stock script itself builds both arms, from the same flags. Their `fit` is called in turns for one step on one batch
of the same token ids. So the time is all that a user waits for: data set, forward, backward, optimizer, logs.

Memory is the peak of a step above what is held between steps, without and with gradient checkpointing. The arm "floor"
trains one token of each row, its last: what a step costs without output embeddings. The arms "trl" are
`bench_train_trl.py` on the rows of the first share: TRL's defaults, and weights in bfloat16 without a float32 copy.
"""

from __future__ import annotations

import argparse
import gc
import glob
import importlib.util
import json
import os
import random
import runpy
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import openrlhf.datasets
import torch
from bench_train_trl import trl_step
from gradient_errors import gradient_errors
from openrlhf.trainer.sft_trainer import SFTTrainer
from openrlhf.utils.deepspeed import DeepspeedStrategy
from step_cost import matmul_rate, measure, parts_of, peak_of

from openrlhf_cft.cli.train_sft import STOCK_SCRIPT
from openrlhf_cft.data import records
from openrlhf_cft.engine.platform import has_fast_bfloat16
from openrlhf_cft.train import stock
from openrlhf_cft.train.arguments import Options
from openrlhf_cft.train.dataset import CriticalTokenDataset

PROMPT = 64  # tokens of each row; the rest is response
FLOOR = "floor"  # the arm with one loss token a row
MEASURES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SHAPES = {  # of Qwen2.5's configurations
    "qwen2.5-0.5b": dict(zip(MEASURES, (896, 4864, 24, 14), strict=True)),
    "qwen2.5-1.5b": dict(zip(MEASURES, (1536, 8960, 28, 12), strict=True)),
}


def make_random(name: str, layers: int | None, tokenizer: str, folder: Path) -> Path:
    """A checkpoint of one of `SHAPES` with random weights; the tokenizer is only there to be loaded."""
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    shape = SHAPES[name] | ({"num_hidden_layers": layers} if layers else {})
    config = Qwen2Config(**shape, num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True, dtype="bfloat16")
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def make_rows(count: int, length: int, share: float, vocabulary: int) -> list[dict[str, Any]]:
    """Rows of random ids, `share` of their response tokens critical, at random places. The ids do not depend on it.

    The last token of a row is always critical, since nothing after a row's last loss position is computed.
    """
    rng = random.Random(0)
    rows = []
    for index in range(count):
        ids = [rng.randrange(vocabulary) for _ in range(length)]
        order = [length - PROMPT - 1, *rng.sample(range(length - PROMPT - 1), length - PROMPT - 1)]
        critical = set(order[: max(1, round(share * (length - PROMPT)))])
        weights = [float(position in critical) for position in range(length - PROMPT)]
        rows.append(
            {
                records.ID: str(index),
                records.PROMPT_IDS: ids[:PROMPT],
                records.RESPONSE_IDS: ids[PROMPT:],
                records.MASK: weights,
            }
        )
    return rows


class StockRows(CriticalTokenDataset):
    """The same ids as the stock data set would give them: a plain attention mask, every response token trained."""

    def __getitem__(self, idx: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ids_1L, flags_1L, _ = super().__getitem__(idx)
        mask_1L = torch.zeros_like(ids_1L, dtype=torch.float32)
        mask_1L[0, PROMPT - 1 : -1] = 1
        return ids_1L, torch.ones_like(flags_1L), mask_1L


def build(options: Options | None, flags: list[str]) -> Any:
    """The trainer of an arm, as the stock script makes it; None is stock SFT. Nothing is trained yet."""
    made: list[Any] = []
    fit, save_model = SFTTrainer.fit, DeepspeedStrategy.save_model
    SFTTrainer.fit = lambda self, *_, **__: made.append(self)  # CriticalTokenTrainer.fit ends in this one
    DeepspeedStrategy.save_model = lambda *_, **__: None
    stock_dataset = openrlhf.datasets.SFTDataset
    sys.argv[1:] = flags
    try:
        if options is None:
            openrlhf.datasets.SFTDataset = StockRows
            runpy.run_module(STOCK_SCRIPT, run_name="__main__", alter_sys=True)
        else:
            stock.run(STOCK_SCRIPT, options)
    finally:
        SFTTrainer.fit, DeepspeedStrategy.save_model = fit, save_model
        openrlhf.datasets.SFTDataset = stock_dataset
    return made[0]


def step_of(trainer: Any, dataset: Any) -> Callable[[], None]:
    """One optimizer step of an arm on one batch."""
    strategy = trainer.strategy
    size = strategy.args.train.micro_batch_size
    loader = strategy.setup_dataloader(dataset, size, True, True, dataset.collate_fn)

    def step() -> None:
        trainer.train_dataloader = loader
        SFTTrainer.fit(trainer, strategy.args, 0, 1)  # not CriticalTokenTrainer's, which first shows an example

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a checkpoint; with --random only its tokenizer is used")
    parser.add_argument("--random", choices=list(SHAPES))
    parser.add_argument("--layers", type=int, help="of the --random model, where memory does not hold all of them")
    parser.add_argument("--no_trl", action="store_true", help="leave out the arms of TRL")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=512, help="tokens of a row")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.5, 1.0], help="critical response tokens")
    parser.add_argument("--repetitions", type=int, default=3)
    own = parser.parse_args()
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ["MASTER_PORT"] = str(free.getsockname()[1])
    with tempfile.TemporaryDirectory() as temporary:
        found = run(own, Path(temporary))
    for leftover in glob.glob(f"/dev/shm/deepspeed_allreduce_buffer_{os.getuid()}_*_{os.environ['MASTER_PORT']}_*"):
        os.unlink(leftover)
    print(json.dumps(found), flush=True)


def fast_bfloat16() -> bool:
    return torch.cuda.is_available() or has_fast_bfloat16()


def stock_flags(own: argparse.Namespace, model: str, rows: list[dict[str, Any]], folder: Path) -> list[str]:
    """The command line of both arms; the rows are written where it says."""
    records_file = folder / "rows.jsonl"
    records_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "--model.model_name_or_path": model,
        "--data.dataset": records_file,
        "--data.max_len": own.length,
        "--train.batch_size": own.rows,
        "--train.micro_batch_size": own.rows,
        "--train.max_epochs": 1,
        "--ds.zero_stage": 2,
        "--ds.param_dtype": "bf16" if fast_bfloat16() else "fp32",
        "--ds.attn_implementation": "sdpa",
        "--adam.lr": 1e-6,
        "--ckpt.output_dir": folder / "out",
    }
    return [str(part) for flag in values.items() for part in flag]


def run(own: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything that is printed."""
    from transformers import AutoConfig

    model = str(make_random(own.random, own.layers, own.model, folder / "model")) if own.random else own.model
    vocabulary = AutoConfig.from_pretrained(model).vocab_size
    rows = {share: make_rows(own.rows, own.length, share, vocabulary) for share in (0.0, *own.shares)}
    errors = gradient_errors(model, {share: rows[share] for share in own.shares}, own.length)
    gc.collect()  # an actor and its hook refer to each other
    flags = stock_flags(own, model, rows[own.shares[0]], folder)
    plain, cft = build(None, flags), build(Options(), flags)
    arms = {"stock": step_of(plain, plain.train_dataloader.dataset), **cft_steps(cft, rows, own.length)}
    rivals = {} if own.no_trl else trl_steps(model, rows[own.shares[0]], own.length, folder)
    seconds = measure(arms | rivals, own.repetitions)
    parts = {name: parts_of(step) for name, step in arms.items()}
    peaks = {name: peak_of(step) for name, step in (arms | rivals).items()}
    for trainer in (plain, cft):  # as OpenRLHF's own scripts do: what is left to hold are the logits
        trainer.model.gradient_checkpointing_enable()
    checkpointed = {name: peak_of(step) for name, step in arms.items()}
    head = cft.model.model.module.get_output_embeddings().weight
    per_token = (
        6 * head.numel() / matmul_rate(head.dtype, head.shape[1])
    )  # seconds: forward, and two products backward
    ratios: dict[str, Any] = {}
    for share in own.shares:
        suffix = "" if share == own.shares[0] else f"_at_{100 * share:.0f}"
        extra = sum(weight > 0 for row in rows[share] for weight in row[records.MASK]) - own.rows
        bound = seconds[FLOOR] + per_token * extra
        figures = compare(f"{share:.0%}", seconds, peaks, checkpointed, bound) | errors[share]
        ratios |= {name + suffix: value for name, value in figures.items()}
    fastest = seconds[f"{own.shares[0]:.0%}"]
    ratios |= {f"{name}_step_time_ratio": round(seconds[name] / fastest, 3) for name in rivals}
    return {
        **ratios,
        "critical": own.shares[0],
        "head_milliseconds_per_token": round(1000 * per_token, 3),
        "step_seconds": {name: round(value, 3) for name, value in seconds.items()},
        "parts_seconds": {name: {part: round(value, 2) for part, value in of.items()} for name, of in parts.items()},
        "activation_mib": {name: round(value / 2**20) for name, value in peaks.items()},
        "activation_mib_checkpointed": {name: round(value / 2**20) for name, value in checkpointed.items()},
        "rows": own.rows,
        "length": own.length,
        "repetitions": own.repetitions,
        # With flash-attn OpenRLHF takes its fused cross entropy for the stock arm, and without it slices.
        "flash_attn": importlib.util.find_spec("flash_attn") is not None,
        "model": own.random or Path(own.model).name,
        "layers": cft.model.model.module.config.num_hidden_layers,
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{torch.get_num_threads()} CPU threads",
    }


def cft_steps(trainer: Any, rows: dict[float, list[dict[str, Any]]], length: int) -> dict[str, Callable[[], None]]:
    """A step of CFT by the share of critical tokens."""
    import datasets

    steps = {}
    for share, given in rows.items():
        dataset = CriticalTokenDataset(datasets.Dataset.from_list(given), trainer.tokenizer, length, trainer.strategy)
        steps[f"{share:.0%}" if share else FLOOR] = step_of(trainer, dataset)
    return steps


def trl_steps(model: str, rows: list[dict[str, Any]], length: int, folder: Path) -> dict[str, Callable[[], None]]:
    """A step of TRL, by its settings."""
    trl = partial(trl_step, model, rows, length)
    steps = {"trl": trl(folder / "trl", torch.float32, autocast=fast_bfloat16())}
    if fast_bfloat16():
        steps["trl_bf16_weights"] = trl(folder / "trl-bf16", torch.bfloat16, autocast=False)
    return steps


def compare(
    arm: str, seconds: dict[str, float], peaks: dict[str, int], checkpointed: dict[str, int], bound: float
) -> dict[str, float]:
    """An arm's ratios to stock SFT, to the floor, and to `bound`, the floor's time and the arm's output embeddings."""
    return {
        "step_time_ratio": round(seconds["stock"] / seconds[arm], 3),
        "step_time_above_arithmetic": round(seconds[arm] / bound, 3),
        "activation_memory_ratio": round(peaks["stock"] / peaks[arm], 3),
        "activation_memory_above_floor": round(peaks[arm] / peaks[FLOOR], 3),
        "activation_memory_ratio_checkpointed": round(checkpointed["stock"] / checkpointed[arm], 3),
        "activation_memory_above_floor_checkpointed": round(checkpointed[arm] / checkpointed[FLOOR], 3),
    }


if __name__ == "__main__":
    main()
