"""A training step of TRL's SFTTrainer on our own export, as a rival of `bench_train.py`.

A user of TRL trains on critical tokens with `masks export --format trl`: labels are -100 elsewhere. TRL 1.16 computes
its loss in chunks by itself (`loss_type="chunked_nll"` is now a deprecated name of the default).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from openrlhf_cft.data.annotated import open_data
from openrlhf_cft.masks.dataset_card import CardSettings
from openrlhf_cft.masks.export import ExportSettings, export, local_output


def trl_step(
    model: str, rows: list[dict[str, Any]], length: int, folder: Path, dtype: torch.dtype, *, autocast: bool
) -> Callable[[], None]:
    """One optimizer step on one batch of all rows: the calls of the Trainer's own loop.

    Args:
        dtype: of the weights and of the optimizer's state. TRL's default is float32, as DeepSpeed's.
        autocast: whether matrix products are in bfloat16 all the same, as is TRL's default.
    """
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    annotated, exported = folder / "annotated", folder / "for-trl"
    annotated.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), annotated / "rows.parquet")
    data = open_data(str(annotated))
    export(data, ExportSettings("trl"), CardSettings(), local_output(exported, data))
    dataset = datasets.load_dataset(str(exported), split="train", cache_dir=str(folder / "cache"))
    settings = SFTConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=len(rows),
        max_length=length,
        gradient_checkpointing=False,
        bf16=autocast,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
    )
    weights = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, attn_implementation="sdpa")
    trainer = SFTTrainer(
        weights, settings, train_dataset=dataset, processing_class=AutoTokenizer.from_pretrained(model)
    )
    optimizer = trainer.create_optimizer()

    def step() -> None:
        batches = iter(trainer.get_train_dataloader())
        batch, tokens = trainer.get_batch_samples(batches, 1, weights.device)
        trainer.training_step(weights, batch[0], tokens)
        torch.nn.utils.clip_grad_norm_(weights.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step
