"""What `examples/train_grpo.sh` starts: flags that the real script accepts, on one machine and on a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from train_helpers import environment, launch, make_model, make_rows, run_command, tail, write_rows

from openrlhf_cft import reward
from openrlhf_cft.data.records import tokenizer_fingerprint

EXAMPLES = Path(__file__).parents[2] / "examples"
MODULE = "openrlhf.cli.train_ppo_ray"
# In place of `python`: the real script, with its own checks of its flags, up to where it would start Ray.
PYTHON = f"""#!{sys.executable}
import os, runpy, sys
if sys.argv[1:3] != ["-m", "{MODULE}"]:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
import ray
ray.init = lambda **_: sys.exit("the flags are accepted: " + " ".join(sys.argv[1:]))
sys.argv[:3] = ["train_ppo_ray"]
runpy.run_module("{MODULE}", run_name="__main__")
"""
RAY = """#!/bin/bash
printf '%s\\n' "$@"
"""


def start(folder: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The script's output, with commands in place of `python` and `ray` that start nothing."""
    for name, text in (("python", PYTHON), ("ray", RAY)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    known = {"MODEL": "model", "DATA": "train.jsonl", "OUT": "out"}
    settings = environment() | known | variables | {"PATH": f"{folder}{os.pathsep}{environment()['PATH']}"}
    command = ["env", "-i", *(f"{name}={value}" for name, value in settings.items() if value)]
    return run_command([*command, "bash", str(EXAMPLES / "train_grpo.sh"), *flags], timeout=600)


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_the_stock_script_accepts_its_flags(tmp_path: Path, accelerator: str) -> None:
    more = ["--eval.dataset", "test.jsonl", "--eval.steps", "5"]
    result = start(tmp_path, *more, DS_ACCELERATOR=accelerator, GPUS="8", TENSOR_PARALLEL="2")
    accepted = result.stderr.splitlines()[-1]
    assert accepted.startswith("the flags are accepted: "), tail(result)
    assert "--vllm.num_engines 4 --vllm.tensor_parallel_size 2" in accepted and accepted.endswith(" ".join(more))
    assert ("--vllm.enable_sleep" in accepted) == (accelerator == "cuda")
    assert f"--reward.remote_url {reward.__file__} " in accepted


def test_prompts_are_made_as_those_of_the_training(tmp_path: Path) -> None:
    """By the chat template; a base model has none, and is trained on prompts by a template of the user's."""
    accepted = start(tmp_path, DS_ACCELERATOR="cpu").stderr.splitlines()[-1]
    assert " --data.apply_chat_template " in accepted and "--data.input_template" not in accepted
    accepted = start(tmp_path, DS_ACCELERATOR="cpu", TEMPLATE="Question: {}\nAnswer:").stderr
    assert "--data.input_template Question: {}\nAnswer: " in accepted and "--data.apply_chat_template" not in accepted


def test_on_a_cluster_it_is_submitted(tmp_path: Path) -> None:
    result = start(tmp_path, DS_ACCELERATOR="cuda", SUBMIT="http://head:8265", NODES="2", VERIFIER="choice")
    assert result.returncode == 0, tail(result)
    job, command = result.stdout.split("\n--\n")
    assert job.splitlines()[:4] == ["job", "submit", "--address", "http://head:8265"]
    variables = json.loads(job.splitlines()[-1])["env_vars"]
    assert variables["OPENRLHF_CFT_VERIFIER"] == "choice"
    words = command.splitlines()
    assert words[:3] == ["python", "-m", MODULE] and words[words.index("--actor.num_nodes") + 1] == "2"


def test_a_reward_file_of_ones_own(tmp_path: Path) -> None:
    result = start(tmp_path, SUBMIT="http://head:8265", VERIFIER="/data/my_reward.py")
    assert "\n--reward.remote_url\n/data/my_reward.py\n" in result.stdout, tail(result)


@pytest.mark.parametrize("name", ["MODEL", "DATA", "OUT"])
def test_what_is_needed_is_named(tmp_path: Path, name: str) -> None:
    result = start(tmp_path, **{name: ""})
    assert result.returncode != 0 and f"{name}: a " in result.stderr


@pytest.mark.slow
def test_a_lora_checkpoint_is_merged_first(tmp_path: Path) -> None:
    """Refused with the command that merges it; merged, it is a whole model with tokenizer and chat template."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = make_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(model)
    data = write_rows(tmp_path / "data", make_rows(8))
    flags = ["--model.model_name_or_path", str(model), "--data.dataset", str(data), "--ckpt.output_dir"]
    flags += [str(tmp_path / "lora"), "--train.batch_size", "4", "--train.micro_batch_size", "4", "--adam.lr", "0.1"]
    flags += ["--ds.lora.rank", "4", "--ds.attn_implementation", "sdpa", "--critical_mask"]
    result = launch(["--module", "openrlhf_cft.cli.train_sft", *flags])
    assert result.returncode == 0, tail(result)

    result = start(tmp_path, MODEL=str(tmp_path / "lora"))
    assert result.returncode == 2 and f"{tmp_path}/lora is a LoRA adapter" in result.stderr, tail(result)
    merge = result.stderr.splitlines()[-1].split()
    assert merge[:3] == ["python", "-m", "openrlhf.cli.lora_combiner"]
    result = run_command([sys.executable, *merge[1:]])
    assert result.returncode == 0, tail(result)

    merged = tmp_path / "lora-merged"
    after = AutoTokenizer.from_pretrained(merged)
    assert after.chat_template == tokenizer.chat_template
    assert tokenizer_fingerprint(after) == tokenizer_fingerprint(tokenizer)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    whole = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).state_dict()
    exact = PeftModel.from_pretrained(base, tmp_path / "lora").merge_and_unload().state_dict()
    assert whole.keys() == exact.keys() == before.keys()
    assert max((exact[name] - before[name]).abs().max() for name in exact) > 0.1  # it has learnt something
    for name, weight in exact.items():  # the merge is in bfloat16: base, update and sum are rounded, to 8 bits each
        assert (whole[name] - weight).abs().max() <= 2**-7 * weight.abs().max(), name
    assert start(tmp_path, MODEL=str(merged)).stderr.splitlines()[-1].startswith("the flags are accepted")
