"""Checkpoints of a tiny model, annotated rows of it, and an evaluation whose engine is scripted."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted_pipeline import ScriptedPipeline
from train_helpers import make_model, make_rows, write_rows

from openrlhf_cft.data.records import tokenizer_fingerprint


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: make_model(folder / name, seed=seed) for seed, name in enumerate(("base", "sft", "cft"))}


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> ScriptedPipeline:
    scripted = ScriptedPipeline()
    monkeypatch.setattr("openrlhf_cft.jobs.run_job.run", scripted)
    return scripted


@pytest.fixture(scope="module")
def annotated(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoTokenizer

    fingerprint = tokenizer_fingerprint(AutoTokenizer.from_pretrained(models["base"]))
    rows = make_rows(20)
    return write_rows(tmp_path_factory.mktemp("annotated") / "a", rows, {"tokenizer_fingerprint": fingerprint})
