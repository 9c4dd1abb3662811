"""Models and data sets that the tests of `masks` share."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizer_families import FAMILIES
from train_helpers import make_model, make_rows, write_rows
from transfer_helpers import TEMPLATE

from openrlhf_cft.data.records import ID, MASK, METADATA_KEY, PROMPT, RESPONSE, RESPONSE_IDS
from openrlhf_cft.data.token_text import decode


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The three families, saved as the tokenizers of models; each with a chat template."""
    folder, found = tmp_path_factory.mktemp("models"), {}
    for family, make in FAMILIES.items():
        tokenizer = make()
        tokenizer.chat_template = TEMPLATE
        if family == "unigram":
            tokenizer.unk_token = "<unk>"
        tokenizer.save_pretrained(folder / family)
        found[family] = str(folder / family)
    return found


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model with a byte-level tokenizer of its own."""
    return str(make_model(tmp_path_factory.mktemp("scorer") / "model"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def annotated(tmp_path: Path, model: Path) -> Path:
    """Six rows, and one without a critical token, with texts, a question, metadata and columns of odd types."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = make_rows(7)
    rows[3][MASK] = [0.0] * len(rows[3][MASK])
    for row in rows:
        row |= {PROMPT: f"<user>{row[ID]}<assistant>", RESPONSE: decode(tokenizer, row[RESPONSE_IDS])}
    path = write_rows(tmp_path / "in", rows)
    source = {"input_key": "question", "apply_chat_template": True}
    metadata = {"model": str(model), "criterion": "strict-3", "verifier": "math", "source": source}
    metadata |= {"decoding": {"max_new_tokens": 32}, "versions": {"openrlhf_cft": "0.1.0"}}
    table = pq.read_table(path / "part-0.parquet")
    table = table.append_column("question", pa.array([f"How many, {row[ID]}?" for row in rows]))
    table = table.append_column("when", pa.array([datetime.datetime(2026, 1, 2)] * 7))
    table = table.append_column("size", pa.array([1.5, float("nan"), None, 0.0, 1.0, 2.0, 3.0]))
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata).encode()})
    pq.write_table(table, path / "part-0.parquet")
    return path
