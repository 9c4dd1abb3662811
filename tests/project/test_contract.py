"""Every name of OpenRLHF that `train` relies on. A failure here says what upstream changed and what must follow it."""

from __future__ import annotations

import ast
import inspect
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import openrlhf.datasets
import openrlhf.models
import openrlhf.trainer.sft_trainer
import openrlhf.utils
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from openrlhf.datasets import utils
from openrlhf.models import Actor, SFTLoss
from openrlhf.models.ring_attn_utils import unpad_and_slice_tensor
from openrlhf.trainer.sft_trainer import SFTTrainer
from openrlhf.utils.deepspeed import DeepspeedStrategy
from openrlhf.utils.loss_utils import iter_grad_accum_global_norm

from openrlhf_cft.cli.train_sft import STOCK_SCRIPT
from openrlhf_cft.errors import InputError
from openrlhf_cft.train import stock
from openrlhf_cft.train.arguments import Options

SUBSTITUTED = {
    ("openrlhf.datasets", "SFTDataset"),
    ("openrlhf.models", "Actor"),
    ("openrlhf.trainer.sft_trainer", "SFTTrainer"),
    ("openrlhf.utils", "get_strategy"),
}


@pytest.fixture(scope="module")
def script() -> ast.Module:
    spec = find_spec(STOCK_SCRIPT)
    assert spec and spec.origin, f"{STOCK_SCRIPT} is gone: `cli/train_sft.py` runs it"
    return ast.parse(Path(spec.origin).read_text())


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def source(thing: Any) -> str:
    return inspect.getsource(thing)


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in found if isinstance(call.func, ast.Name) and call.func.id == name]


def test_the_script_imports_by_name_what_is_substituted(script: ast.Module) -> None:
    imported = {
        (node.module, alias.name)
        for node in script.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is None
    }
    missing = SUBSTITUTED - imported
    assert not missing, f"the stock script no longer imports {missing}: `train/stock.py` substitutes these"


def test_the_script_runs_under_main_and_calls_what_is_substituted(script: ast.Module) -> None:
    guards = [node for node in script.body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)]
    assert guards, "the stock script has no `if __name__ == '__main__'`: `train/stock.py` runs it under that name"
    train = next((node for node in script.body if isinstance(node, ast.FunctionDef) and node.name == "train"), None)
    assert train, "the stock script has no function `train`"
    first = ast.unparse(train.body[0])
    assert first == "strategy = get_strategy(args)", (
        f"`train` starts with {first!r}: the preflight hangs on get_strategy"
    )
    for name, count in (("SFTDataset", 2), ("Actor", 1), ("SFTTrainer", 1)):
        assert len(calls(train, name)) == count, f"the stock script calls {name} {len(calls(train, name))} times"


def test_the_script_reads_the_flags_that_the_preflight_reads(script: ast.Module) -> None:
    flags = {
        call.args[0].value
        for call in ast.walk(script)
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument"
        if isinstance(call.args[0], ast.Constant)
    }
    needed = {"data.dataset", "data.dataset_probs", "data.max_len", "data.max_samples", "data.multiturn"}
    needed |= {"eval.dataset", "model.model_name_or_path", "model.pretrain_mode_enable", "ds.ring_attn_size"}
    needed |= {"ds.tensor_parallel_size", "train.batch_size", "train.micro_batch_size", "train.max_epochs"}
    needed |= {"ds.deepcompile", "ds.packing_samples", "logger.logging_steps", "use_ms"}
    missing = {f"--{name}" for name in needed} - flags
    assert not missing, f"the stock script has no {missing}: `train/preflight.py` and `train/trainer.py` read these"
    assert "--critical_mask" not in flags, "the stock script has a --critical_mask of its own"


def test_substitution_is_undone() -> None:
    before = [getattr(__import__(module, fromlist=["x"]), name) for module, name in sorted(SUBSTITUTED)]
    options = Options("column", dense_logits=True)
    with stock.substituted(options):
        inside = [getattr(__import__(module, fromlist=["x"]), name) for module, name in sorted(SUBSTITUTED)]
        assert not any(one is other for one, other in zip(before, inside, strict=True))
        assert inside[0].keywords == {"mask_column": "column", "missing": "error", "vocab_size": None}
        assert inside[1].keywords == {"dense_logits": True} and inside[2].keywords == {"options": options}
    assert before == [getattr(__import__(module, fromlist=["x"]), name) for module, name in sorted(SUBSTITUTED)]


@pytest.mark.parametrize("probabilities", [None, "0.5,0.5"])
def test_two_types_of_one_column_are_one_sentence(tmp_path: Path, probabilities: str | None) -> None:
    """What the stock `blending_datasets` calls is substituted too, and put back."""
    before = (datasets.concatenate_datasets, utils.interleave_datasets)
    weights = {"rows.parquet": pa.list_(pa.float32()), "more.parquet": pa.list_(pa.float64())}
    for name, kind in weights.items():
        table = pa.table({"id": ["a"], "critical_mask": pa.array([[0.5]], kind)})
        pq.write_table(table, tmp_path / name)
    strategy = SimpleNamespace(print=lambda *_: None, is_rank_0=lambda: False, args=SimpleNamespace(use_ms=False))
    names = ",".join(str(tmp_path / name) for name in weights)
    sentence = r"--data.dataset cannot be joined: column 'critical_mask' is .*float32.* and .*float64"
    with stock.substituted(Options("critical_mask")), pytest.raises(InputError, match=sentence):
        utils.blending_datasets(names, probabilities, strategy, dataset_split="train")
    assert before == (datasets.concatenate_datasets, utils.interleave_datasets)


def test_data_set_signature() -> None:
    wanted = ["dataset", "tokenizer", "max_length", "strategy", "input_template", "pretrain_mode", "num_processors"]
    found = parameters(openrlhf.datasets.SFTDataset.__init__)
    assert found == [*wanted, "multiturn"], f"SFTDataset.__init__ takes {found}: CriticalTokenDataset copies it"
    assert parameters(openrlhf.datasets.SFTDataset.collate_fn) == ["item_list"]


def test_actor_signature() -> None:
    found = parameters(Actor.forward)
    assert found[:4] == ["sequences", "action_mask", "attention_mask", "return_output"], (
        f"Actor.forward takes {found}: CriticalTokenActor.forward starts with the first four"
    )
    missing = {"return_logprobs", "return_entropy", "ring_attn_group"} - set(found)
    assert not missing, f"Actor.forward has no {missing}: CriticalTokenActor passes them on by name"
    assert "self.packing_samples" in source(Actor), "Actor has no packing_samples: CriticalTokenActor reads it"


def test_actor_returns_logits_when_no_log_probabilities_are_asked_for() -> None:
    text = source(Actor.forward)
    for line in (
        "if not return_action_log_probs and not return_logprobs:",
        'output["logits"] = output["logits"].to(torch.float32)',
        "unpad_and_slice_tensor(",
    ):
        assert line in text, f"Actor.forward lacks {line!r}: CriticalTokenActor takes float32 logits from that path"


def test_unpadding_keeps_the_order_of_real_tokens() -> None:
    sequences = torch.tensor([[5, 6, 0], [7, 8, 9]])
    unpadded, *_, indices = unpad_and_slice_tensor(sequences, torch.tensor([[1, 1, 0], [1, 1, 1]]), None)
    assert unpadded.tolist() == [[5, 6, 7, 8, 9]], (
        "packing reorders tokens: CriticalTokenActor counts real ones in order"
    )
    assert indices.tolist() == [0, 1, 3, 4, 5]


def test_loss_signature() -> None:
    found = parameters(SFTLoss.forward)
    assert found == ["per_token_logps", "loss_mask", "dp_size", "batch_num_tokens", "global_batch_size"], (
        f"SFTLoss.forward takes {found}: CriticalTokenLoss copies it"
    )
    assert SFTLoss().token_level_loss, "SFTLoss no longer averages over tokens: the CFT loss does"


@pytest.mark.parametrize(
    "line",
    [
        "for (inputs, attention_masks, loss_masks), loss_batch_info in iter_grad_accum_global_norm(",
        "return batch[2].squeeze(1)[:, :-1]",
        "attention_mask = attention_masks.to(device).squeeze(1)",
        "shifted_loss_mask = loss_mask[:, :-1]",
        "attention_mask=attention_mask,",
        "return_logprobs=True,",
        "self.loss_fn(",
        "engine = self.model.model",
        "self.save_logs_and_checkpoints(args, engine.global_steps, step_bar, logs_dict, client_states)",
    ],
)
def test_fit_does_with_a_batch_what_the_flags_rely_on(line: str) -> None:
    assert line in source(SFTTrainer.fit), f"SFTTrainer.fit lacks {line!r}"


def test_evaluation_uses_the_same_loss_on_the_same_batch() -> None:
    text = source(SFTTrainer.evaluate)
    assert "for inputs, attention_masks, loss_masks in eval_dataloader:" in text
    assert "self.loss_fn(per_token_log_probs, loss_mask[:, :-1])" in text, "evaluate no longer calls loss_fn this way"
    assert '{"eval gpt_loss": loss_sum / times}' in text, "the study reads the held-out loss by that name"


def test_trainer_signatures() -> None:
    assert parameters(SFTTrainer.fit) == ["args", "consumed_samples", "num_update_steps_per_epoch"]
    found = parameters(SFTTrainer.save_logs_and_checkpoints)
    assert found == ["args", "global_step", "step_bar", "logs_dict", "client_states"]
    assert parameters(SFTTrainer.evaluate) == ["eval_dataloader", "steps"]


@pytest.mark.parametrize(
    "name", ["strategy", "epochs", "train_dataloader", "model", "tokenizer", "loss_fn", "_wandb", "_tensorboard"]
)
def test_trainer_attributes(name: str) -> None:
    assert f"self.{name} =" in source(SFTTrainer.__init__), f"SFTTrainer has no {name}: CriticalTokenTrainer uses it"


def test_strategy() -> None:
    for name in ("all_reduce", "is_rank_0", "print", "optimizer_step"):
        assert hasattr(DeepspeedStrategy, name), f"DeepspeedStrategy has no {name}"
    assert parameters(DeepspeedStrategy.all_reduce) == ["data", "op"]
    assert "self.accumulated_gradient = " in source(DeepspeedStrategy.setup_distributed)
    assert "isinstance(model, Actor)" in source(DeepspeedStrategy), "the strategy tells an Actor in another way now"


def test_the_denominator_is_the_sum_of_weights_over_the_step() -> None:
    assert parameters(iter_grad_accum_global_norm) == ["data_iter", "strategy", "accumulated_gradient", "mask_fn"]
    masks = [torch.tensor([[0.5, 0.0]]), torch.tensor([[1.0, 2.5]])]
    found = [info["batch_num_tokens"].item() for _, info in iter_grad_accum_global_norm(masks, None, 2, lambda m: m)]
    assert found == [2.0, 2.0], (
        "batch_num_tokens is no longer sum(w) / gradient accumulation: the CFT loss relies on it"
    )
