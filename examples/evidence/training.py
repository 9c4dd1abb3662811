"""The steps that train and measure: the sweep of learning rates, the seeds of every arm, reinforcement learning."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arms import HELD_OUT, Arm, column
from common import EXAMPLES, MODEL, Settings, evaluate, shell

from openrlhf_cft.curves import ENTROPY, REWARD, read_curves
from openrlhf_cft.engine.platform import has_fast_bfloat16, uses_gpu

EVALUATED_EVERY = 10  # optimizer steps
MASKED_LOSS, STOCK_LOSS = "eval/critical_loss", "eval/eval gpt_loss"  # the latter's name is OpenRLHF's
RL_PROMPTS = 4  # a step
RL_ARMS = ("sft", "cft3")


def memory() -> dict[str, str]:
    """That malloc keeps what is freed. Otherwise each step on a CPU returns its tensors to the system and gets them
    back as new pages: 3.6 s against 3.0 s; of GRPO, 11.8 s against 10.0 s, for 7.4 GB instead of 5.4 in 12 steps."""
    return {} if uses_gpu() else {"MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**33)}


def precision() -> list[str]:
    """Of parameters and gradients; the optimizer keeps float32. Measured on 2 cores with AMX: 2.5 s a step in
    bfloat16, 3.0 s with sdpa, 5.1 s in float32."""
    if uses_gpu():
        return ["--ds.param_dtype", "bf16", "--ds.attn_implementation", "flash_attention_2"]
    return ["--ds.param_dtype", "bf16" if has_fast_bfloat16() else "fp32", "--ds.attn_implementation", "eager"]


def sft(study: Settings, name: str, model: str, data: Path, *flags: object) -> Path:
    """Train by OpenRLHF's own script; the folder of the checkpoint, which is whole or absent."""
    out = study.run_dir / "checkpoints" / name
    partial = out.with_name(f"{name}.partial")
    for folder in (out, partial, study.run_dir / "tensorboard" / name):
        shutil.rmtree(folder, ignore_errors=True)
    own = [*MODEL, model, "--data.dataset", data]
    own += ["--data.input_key", "question", "--data.output_key", "response", *study.form]
    own += ["--data.max_len", "512", "--train.batch_size", "16", "--train.micro_batch_size", study.micro_batch]
    own += ["--ds.zero_stage", "2", "--ckpt.output_dir", partial]
    own += ["--logger.tensorboard_dir", study.run_dir / "tensorboard", "--logger.wandb.run_name", name]
    command = ["deepspeed", "--num_gpus", study.gpus, "--module", "openrlhf_cft.cli.train_sft"]
    shell(study, name, *command, *own, *precision(), *flags, **memory())
    partial.rename(out)
    return out


def train(study: Settings, name: str, arm: Arm, rate: float, seed: int, *evaluated: object) -> Path:
    """Train an arm by the arm's flags; the folder of its checkpoint."""
    flags = ["--train.max_epochs", study.epochs, "--adam.lr", rate, "--train.seed", seed]
    return sft(study, name, study.base(), study.training_file(arm), *flags, *evaluated, *arm.flags, *study.train_flags)


def sweep(study: Settings, arm: Arm, rate: float) -> dict[str, Any]:
    """An arm at a learning rate, on the validation questions."""
    name = f"sweep-{arm.name}-{rate:g}"
    checkpoint = train(study, name, arm, rate, seed=0)
    found = evaluate(study, name, checkpoint, "validation", 0, "--eval.entropy_positions", 0)
    shutil.rmtree(checkpoint)
    return {"rate": rate, **found}


def best_rate(study: Settings, arm: Arm) -> float:
    """The learning rate with the largest greedy accuracy on the validation questions; the smaller one of two."""
    found = {rate: study.result(f"sweep-{arm.name}-{rate:g}")["figures"]["accuracy"] for rate in sorted(study.rates)}
    return max(found, key=lambda rate: found[rate])


def train_seed(study: Settings, arm: Arm, seed: int) -> dict[str, Any]:
    """Train an arm with its learning rate; its loss on held-out rows, and at which step that is smallest."""
    name, rate = f"train-{arm.name}-{seed}", best_rate(study, arm)
    train(study, name, arm, rate, seed, "--eval.dataset", study.results / HELD_OUT, "--eval.steps", EVALUATED_EVERY)
    curves = read_curves(study.run_dir / "tensorboard" / name)
    curve = curves.get(MASKED_LOSS if column(arm) else STOCK_LOSS)
    if curve is None:
        raise SystemExit(f"evidence: {name} ended before its first evaluation, step {EVALUATED_EVERY}; more --train")
    losses = dict(zip(curve.steps, curve.values, strict=True))
    return {"rate": rate, "held_out_loss": losses, "step_of_best": min(losses, key=lambda step: losses[step])}


def checkpoint_of(study: Settings, arm: Arm, seed: int) -> Path:
    """The checkpoint of a seed; trained again where it is missing."""
    path = study.run_dir / "checkpoints" / f"train-{arm.name}-{seed}"
    if not (path / "config.json").exists():
        train_seed(study, arm, seed)
    return path


def evaluate_test(study: Settings, arm: Arm | None, seed: int) -> dict[str, Any]:
    """A checkpoint, or the model before training, on the test questions."""
    checkpoint = checkpoint_of(study, arm, seed) if arm else Path(study.base())
    name = f"test-{arm.name}-{seed}" if arm else "test-base"
    flags = ["--eval.annotated", study.results / HELD_OUT, "--train.seed", seed]
    found = evaluate(study, name, checkpoint, "test", study.samples, *flags)
    if arm and not (seed <= study.rl_seeds and arm.name in RL_ARMS):
        shutil.rmtree(checkpoint)  # half a gigabyte; those that reinforcement learning starts from are kept
    return found


def reinforce(study: Settings, name: str, seed: int) -> dict[str, Any]:
    """GRPO from the checkpoint of a seed: entropy and accuracy over its steps."""
    arm = next(arm for arm in study.arms if arm.name == name)
    out = study.run_dir / f"rl-{name}-{seed}"
    sizes = {
        "PROMPTS": RL_PROMPTS,
        "SAMPLES": 6,
        "MICRO": 12,
        "PROMPT_LENGTH": 96,
        "LR": 1e-5,
        "SAVE": 10,
        "SEED": seed,
    }
    questions = study.rl_steps * RL_PROMPTS
    curves = grpo(study, f"rl-{name}-{seed}", checkpoint_of(study, arm, seed), out, sizes, questions)
    shutil.rmtree(out)
    return curves


def grpo(
    study: Settings, name: str, start: Path, out: Path, variables: Mapping[str, object], questions: int, *flags: object
) -> dict[str, Any]:
    """GRPO by the project's script, on the first of the training questions: entropy and accuracy over its steps.

    Args:
        start: the checkpoint that it begins with.
        out: where it keeps its state: the same call goes on there.
        variables: of `train_grpo.sh`, beside those that follow from the study.
    """
    more = {"MODEL": start, "DATA": study.questions("train"), "OUT": out, "LENGTH": study.length, "GPUS": study.gpus}
    texts = {key: str(value) for key, value in {**variables, **more}.items()}
    script = EXAMPLES / "train_grpo.sh"
    shell(study, name, "bash", script, "--data.max_samples", questions, *flags, **texts, **memory())
    curves = read_curves(out / "tensorboard" / "grpo")
    return {tag: vars(curves[tag]) for tag in (ENTROPY, REWARD)}
