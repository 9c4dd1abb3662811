"""Exports proven by the tools that read them: the real TRL trains a step, and its loss and update are ours.

`check_*` take a really annotated data set and its model, for end-to-end tests; `trl_step` and `our_step` any.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow.parquet as pq
import torch
from huggingface_hub import DatasetCard

from openrlhf_cft.cli.masks import main
from openrlhf_cft.data.records import ID, MASK, PROMPT_IDS, RESPONSE_IDS, read_rows
from openrlhf_cft.train.actor import CriticalTokenActor
from openrlhf_cft.train.dataset import encode_row
from openrlhf_cft.train.loss import CriticalTokenLoss

RATE = 0.1  # of the one step of plain SGD

Step = tuple[float, dict[str, torch.Tensor]]  # the loss, and the parameters after the step


def trl_step(model: Path, data: datasets.Dataset, folder: Path, batch: int, accumulate: int, **options: Any) -> Step:
    """One optimizer step of TRL's `SFTTrainer` over all rows of `data`, in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    assert len(data) == batch * accumulate
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL reports its use from its constructor
    config = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate,
        num_train_epochs=1,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        **options,
    )
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer = SFTTrainer(loaded, args=config, train_dataset=data, processing_class=tokenizer)
    loss = trainer.train().training_loss  # `log_history` has it with four digits
    return loss, {name: value.detach() for name, value in loaded.named_parameters()}


def our_step(model: Path, rows: list[dict[str, Any]], mask: str = MASK) -> Step:
    """The same step with our actor and loss, all rows in one batch."""
    length = max(len(row[PROMPT_IDS]) + len(row[RESPONSE_IDS]) for row in rows)
    encoded = [encode_row(row[PROMPT_IDS], row[RESPONSE_IDS], row[mask], max_length=length) for row in rows]
    ids, bits, weights = (
        torch.cat([torch.nn.functional.pad(part, (0, length - part.shape[1])) for part in column])
        for column in zip(*encoded, strict=True)
    )
    actor = CriticalTokenActor(str(model), attn_implementation="sdpa", param_dtype="fp32")
    loss = CriticalTokenLoss()(actor(ids, attention_mask=bits, return_logprobs=True), weights[:, :-1])
    loss.backward()
    with torch.no_grad():
        stepped = {name: p - RATE * p.grad for name, p in actor.model.named_parameters() if p.grad is not None}
    return loss.item(), stepped


def check_same_step(ours: Step, theirs: Step, tolerance: float = 1e-4) -> None:
    """The same loss, and the same parameters after the step."""
    assert abs(ours[0] - theirs[0]) <= tolerance, (ours[0], theirs[0])
    assert ours[1].keys() == theirs[1].keys()
    for name, value in ours[1].items():
        torch.testing.assert_close(theirs[1][name], value, rtol=0, atol=tolerance, msg=name)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch uses so many threads: a tiny model only waits for a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_trl_step(annotated: Path, model: Path, folder: Path, count: int = 6) -> None:
    """The real TRL trains a step on the export of a few rows, and its loss and update are ours."""
    rows = [row for row in read_rows(annotated) if any(row[MASK])][:count]
    (folder / "few").mkdir(parents=True)
    table = pq.read_table(sorted(annotated.glob("*.parquet"))[0])
    kept = {row[ID] for row in rows}
    pq.write_table(table.filter([one in kept for one in table[ID].to_pylist()]), folder / "few" / "part-0.parquet")
    main(["export", str(folder / "few"), "--format", "trl", "--out", str(folder / "trl")])
    data = datasets.load_dataset(str(folder / "trl"), split="train", cache_dir=str(folder / "cache"))
    ours = our_step(model, list(read_rows(folder / "few")))
    theirs = trl_step(model, data, folder / "run", batch=count // 2, accumulate=2)
    print(f"loss of one step: ours {ours[0]:.7f}, TRL's {theirs[0]:.7f}, difference {abs(ours[0] - theirs[0]):.1e}")
    check_same_step(ours, theirs)


def check_exports(annotated: Path, model: Path, folder: Path) -> None:
    """Every format of a real data set loads with `datasets`, holds each row with a critical token, and has a card."""
    kept = [row for row in read_rows(annotated) if any(row[MASK])]
    responses = {row[ID]: row["response"] for row in kept}
    for name in ("trl", "axolotl", "llamafactory", "sharegpt", "jsonl"):
        out = folder / name
        flags = ["--format", name, "--model.model_name_or_path", str(model), "--language", "en"]
        main(["export", str(annotated), "--out", str(out), *flags])
        data = datasets.load_dataset(str(out), split="train", cache_dir=str(folder / "cache"))
        assert len(data) == len(kept)
        assert DatasetCard.load(out / "README.md").data.size_categories == ["n<1K"]
    for row in json.loads((folder / "sharegpt" / "train.json").read_text()):
        assert row["conversations"][-1] == {"from": "gpt", "value": responses[row["id"]]}
        assert row["critical_spans"] and all(span["message"] == 1 for span in row["critical_spans"])
    tokenized = datasets.load_from_disk(str(folder / "llamafactory" / "tokenized"))["train"]
    for row, found in zip(kept, tokenized, strict=True):
        trained = [token for token in found["labels"] if token != -100]
        assert trained == [token for token, weight in zip(row[RESPONSE_IDS], row[MASK], strict=True) if weight]
    main(["card", str(annotated), "--out", str(folder / "README.md")])
    assert DatasetCard.load(folder / "README.md").data.configs[0]["data_files"][0]["path"] == "*.parquet"


def check_selections_by_model(annotated: Path, model: Path, folder: Path, reference: Path) -> None:
    """Entropy, attention and excess loss select as many tokens a row as are critical, and not the same ones."""
    hows = ["entropy", "attention", "excess_loss"]
    flags = ["--column", *hows, "--how", *hows, "--model.model_name_or_path", str(model)]
    flags += ["--reference.model_name_or_path", str(reference), "--dtype", "float32"]
    main(["derive", str(annotated), "--out", str(folder / "derived"), *flags])
    rows = list(read_rows(folder / "derived"))
    assert len(rows) == len(list(read_rows(annotated)))
    for row in rows:
        assert {sum(row[how]) for how in hows} == {sum(weight > 0 for weight in row[MASK])}
    selected = {how: int(sum(sum(map(min, row[how], row[MASK])) for row in rows)) for how in hows}
    print(f"of {sum(sum(row[MASK]) for row in rows):.0f} critical tokens, selected too: {selected}")
    assert len({str([row[how] for row in rows]) for how in hows}) == 3
