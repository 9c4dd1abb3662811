"""What the stock script can do, done with masks: blends, DFT, the scripts that OpenRLHF ships, our example script."""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from train_helpers import VOCAB, free_port, launch, make_model, make_rows, remove_buffers, run_command, scalars, tail

from openrlhf_cft.data import records
from openrlhf_cft.data.loss_mask import labels as labels_of

MODULE = "openrlhf_cft.cli.train_sft"
EXAMPLE = Path(__file__).parents[2] / "examples" / "train_sft_cft.sh"
# The flags of OpenRLHF 0.11's examples/scripts/train_sft.sh and train_sft_mixtral_lora.sh, in their order.
SCRIPTS = {
    "train_sft.sh": """
        --data.max_len 2048 --data.dataset Open-Orca/OpenOrca --data.input_key question --data.output_key response
        --train.batch_size 256 --train.micro_batch_size 2 --data.max_samples 500000
        --model.model_name_or_path meta-llama/Meta-Llama-3-8B --ckpt.output_dir ./checkpoint/llama3-8b-sft
        --ckpt.save_steps -1 --logger.logging_steps 1 --eval.steps -1 --ds.zero_stage 2 --train.max_epochs 1
        --ds.param_dtype bf16 --ds.attn_implementation flash_attention_2 --adam.lr 5e-6 --ckpt.load_enable
        --ds.packing_samples --model.gradient_checkpointing_enable""",
    "train_sft_mixtral_lora.sh": """
        --data.max_len 2048 --data.dataset Open-Orca/OpenOrca --data.input_key question --data.output_key response
        --train.batch_size 128 --train.micro_batch_size 4 --data.max_samples 500000
        --model.model_name_or_path mistralai/Mixtral-8x7B-v0.1 --ckpt.output_dir ./checkpoint/mixtral-sft-lora
        --ckpt.save_steps -1 --logger.logging_steps 1 --eval.steps -1 --ds.zero_stage 3 --train.max_epochs 1
        --ds.param_dtype bf16 --model.gradient_checkpointing_enable --ds.attn_implementation flash_attention_2
        --adam.lr 5e-6 --ds.lora.rank 64 --ds.lora.alpha 64 --ds.packing_samples --model.aux_loss_coef 0.001""",
}


def make_mixtral(path: Path) -> Path:
    from transformers import MixtralConfig, MixtralForCausalLM

    make_model(path)  # for the tokenizer
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": VOCAB}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 4}
    MixtralForCausalLM(MixtralConfig(**sizes, **heads, eos_token_id=1, pad_token_id=0)).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, 16 annotated rows, and 16 rows of text alone."""
    folder = tmp_path_factory.mktemp("features")
    make_model(folder / "model")
    make_mixtral(folder / "mixtral")
    text = {"question": "the sum of 1 and 2 is", "response": "3"}
    rows = [{**row, **text} for row in make_rows(16)]
    fields = records.annotation_fields()
    schema = pa.schema([(name, fields.get(name, pa.string())) for name in rows[0]])
    (folder / "annotated").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "annotated" / "part-0.parquet")
    pq.write_table(pa.Table.from_pylist([text] * 16), folder / "texts.parquet")
    return folder


def flags(folder: Path, name: str, **changes: object) -> list[str]:
    """The last flags of a command, which win over those before."""
    values: dict[str, object] = {
        "model.model_name_or_path": folder / "model",
        "data.dataset": folder / "annotated",
        "train.batch_size": 8,
        "train.micro_batch_size": 4,
        "ds.attn_implementation": "sdpa",
        "logger.tensorboard_dir": folder / name / "tensorboard",
        "ckpt.path": folder / name / "checkpoints",
        "ckpt.output_dir": folder / name / "model",
    }
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    return [str(part) for key, value in values.items() for part in (f"--{key}", value)]


@pytest.fixture(scope="module")
def runs(folder: Path) -> Any:
    """Launched runs by name, two at a time; each starts when the first test asks for any."""
    text = ["--data.input_key", "question", "--data.output_key", "response"]
    blend = flags(folder, "blend", data__dataset=f"{folder / 'annotated'},{folder / 'texts.parquet'}")
    blend += ["--cft.missing", "train", "--data.dataset_probs", "0.5,0.5", *text]
    evaluated = [*flags(folder, "two ranks", eval__dataset=folder / "annotated", ds__zero_stage=3, adam__lr=1e-3)]
    evaluated += ["--ds.packing_samples", "--ds.param_dtype", "fp32"]
    port = free_port()
    example = {"PORT": str(port), "MODEL": str(folder / "model"), "DATA": str(folder / "annotated"), "GPUS": "1"}
    command = ["env", *(f"{name}={value}" for name, value in example.items()), "bash", str(EXAMPLE)]

    def shipped(name: str) -> Any:
        model = folder / ("mixtral" if "mixtral" in name else "model")
        own = flags(folder, name, model__model_name_or_path=model)
        return launch(["--module", MODULE, "--critical_mask", *SCRIPTS[name].split(), *own])

    commands: dict[str, Any] = {name: partial(shipped, name) for name in SCRIPTS}
    commands |= {
        "blend": lambda: launch(["--module", MODULE, "--critical_mask", *blend]),
        "dft": lambda: launch(["--module", MODULE, "--cft.loss", "dft", *flags(folder, "dft"), *text]),
        "sft": lambda: launch(["--module", MODULE, *flags(folder, "sft"), *text]),
        "example": lambda: run_command([*command, *flags(folder, "example"), "--train.max_epochs", "1"]),
        "two ranks": lambda: launch(["--module", MODULE, "--critical_mask", *evaluated], processes=2),
    }
    with ThreadPoolExecutor(2) as pool:

        @cache
        def started() -> dict[str, Future[Any]]:
            return {name: pool.submit(command) for name, command in commands.items()}

        yield lambda name: started()[name].result()
    remove_buffers(port)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SCRIPTS, "example"])
def test_the_scripts_train_with_our_module_and_flag(name: str, runs: Any, folder: Path) -> None:
    result = runs(name)
    assert result.returncode == 0, tail(result)
    logs = scalars(folder / name / "tensorboard")
    assert len(logs["train/critical_loss"]) == 2  # 16 rows in batches of 8
    assert "one example, trained tokens marked" in result.stdout
    if "mixtral" in name:
        assert all(loss > 0 for loss in logs["train/aux_loss"])


@pytest.mark.slow
def test_a_blend_of_annotated_rows_and_text(runs: Any, folder: Path) -> None:
    result = runs("blend")
    assert result.returncode == 0, tail(result)
    found = re.search(
        r"critical tokens: (\d+) rows, .*rows without 'critical_mask': (\d+) trained", result.stdout, re.S
    )
    assert found and int(found[1]) >= 8 and int(found[2]) >= 8
    shares = scalars(folder / "blend" / "tensorboard")["train/critical_share"]
    alone = scalars(folder / "train_sft.sh" / "tensorboard")["train/critical_share"]
    assert min(shares) > max(alone)  # text is trained whole


@pytest.mark.slow
def test_evaluation_is_that_of_the_saved_model(runs: Any, folder: Path) -> None:
    """On two ranks, ZeRO 3, packed: the figures of the last evaluation, from the model that was saved after it."""
    from transformers import AutoModelForCausalLM

    result = runs("two ranks")
    assert result.returncode == 0, tail(result)
    model = AutoModelForCausalLM.from_pretrained(folder / "two ranks" / "model", dtype=torch.float32)
    losses: dict[bool, list[float]] = {True: [], False: []}
    entropies: dict[bool, list[float]] = {True: [], False: []}
    for row in records.read_rows(folder / "annotated"):
        ids = torch.tensor([[*row[records.PROMPT_IDS], *row[records.RESPONSE_IDS]]])
        with torch.no_grad():
            log_probs = model(ids).logits[0].log_softmax(-1)
        for index, weight in enumerate(row[records.MASK], start=len(row[records.PROMPT_IDS])):
            losses[weight > 0].append(-log_probs[index - 1, ids[0, index]].item())
            entropies[weight > 0].append(-(log_probs[index - 1].exp() * log_probs[index - 1]).sum().item())
    logs = scalars(folder / "two ranks" / "tensorboard")
    for name, trained in (("critical", True), ("other", False)):
        assert logs[f"eval/{name}_loss"][-1] == pytest.approx(mean(losses[trained]), rel=1e-4)
        assert logs[f"eval/{name}_entropy"][-1] == pytest.approx(mean(entropies[trained]), rel=1e-4)


@pytest.mark.slow
def test_dft_on_all_tokens_is_one_flag_away_from_the_stock_script(runs: Any, folder: Path) -> None:
    for name in ("dft", "sft"):
        assert runs(name).returncode == 0, tail(runs(name))
    dft, sft = (scalars(folder / name / "tensorboard") for name in ("dft", "sft"))
    assert dft.keys() == sft.keys()
    assert 0 < dft["train/loss_mean"][0] < sft["train/loss_mean"][0]  # times a probability


def test_other_trainers_see_the_same_loss(tmp_path: Path) -> None:
    """The rows as `input_ids` and `labels`, -100 off the mask, in transformers' own loss (so in TRL's)."""
    from transformers import AutoModelForCausalLM

    from openrlhf_cft.train.actor import CriticalTokenActor
    from openrlhf_cft.train.dataset import encode_row
    from openrlhf_cft.train.loss import CriticalTokenLoss

    path = make_model(tmp_path / "model")
    rows = make_rows(6)
    length = max(len(row[records.PROMPT_IDS] + row[records.RESPONSE_IDS]) for row in rows)
    columns: list[list[torch.Tensor]] = [[], [], [], [], []]
    for row in rows:
        ids, labels = labels_of(row[records.PROMPT_IDS], row[records.RESPONSE_IDS], row[records.MASK])
        encoded = encode_row(row[records.PROMPT_IDS], row[records.RESPONSE_IDS], row[records.MASK], length)
        parts = (torch.tensor([ids]), torch.tensor([labels]), *encoded)
        for column, part, fill in zip(columns, parts, (0, -100, 0, 0, 0), strict=True):
            column.append(torch.nn.functional.pad(part, (0, length - part.shape[1]), value=fill))
    input_ids, labels_BL, ids_BL, flags_BL, mask_BL = map(torch.cat, columns)
    assert torch.equal(input_ids, ids_BL)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    wanted = model(input_ids, attention_mask=flags_BL & 1, labels=labels_BL).loss
    actor = CriticalTokenActor(str(path), attn_implementation="sdpa", param_dtype="fp32")
    found = CriticalTokenLoss()(actor(ids_BL, attention_mask=flags_BL, return_logprobs=True), mask_BL[:, :-1])
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
