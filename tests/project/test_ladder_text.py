"""Stock SFT sees the tokens that the base itself wrote."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ladder_settings import ladder
from openrlhf.datasets import SFTDataset
from train_helpers import make_tokenizer

from ladder import text  # isort: skip
from ladder.base import Ladder  # isort: skip

QUESTIONS = ["count 1 then 2", "3 apples and 4 pears"]
RESPONSES = ["the sum of 1 and 2 is 3.", "make 7 pieces of fruit"]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ladder:
    """A base of which only the tokenizer is there."""
    make_tokenizer(tmp_path / "base")
    monkeypatch.setattr(Ladder, "base", lambda _: str(tmp_path / "base"))
    sizes = ladder(tmp_path)
    sizes.results.mkdir()
    return sizes


def write(study: Ladder, responses: list[str], **columns: list[list[int]]) -> None:
    rows = {"id": ["a", "b"], "question": QUESTIONS, "answer": ["3", "7"], "response": responses, **columns}
    pq.write_table(pa.table(rows), study.results / "data.parquet")


def own_ids(study: Ladder, tokenizer: Any) -> dict[str, list[list[int]]]:
    """Token ids of prompts and responses, the end token included."""
    _, template = study.form
    prompts = [tokenizer(template.format(question))["input_ids"] for question in QUESTIONS]
    responses = [[*tokenizer(response)["input_ids"], tokenizer.eos_token_id] for response in RESPONSES]
    return {"prompt_token_ids": prompts, "response_token_ids": responses}


def test_stock_sft_trains_on_the_models_own_tokens(study: Ladder) -> None:
    """Whatever space the model wrote before the end token: it is not there in the text, and none is added."""
    tokenizer = text.tokenizer_of(study.base())
    ids = own_ids(study, tokenizer)
    write(study, RESPONSES, **ids)
    rows = [text.json.loads(line) for line in text.as_text(study, "data.parquet").open()]
    args = SimpleNamespace(
        data=SimpleNamespace(
            input_key="question", output_key="response", apply_chat_template=False, tokenizer_chat_template=None
        )
    )
    strategy = SimpleNamespace(args=args, is_rank_0=lambda: False)
    import datasets

    stock = SFTDataset(datasets.Dataset.from_list(rows), tokenizer, 512, strategy, input_template=study.form[1])
    for number in range(2):
        seen = stock[number][0][0].tolist()
        assert seen == ids["prompt_token_ids"][number] + ids["response_token_ids"][number]


def test_other_tokens_than_the_models_own_are_refused(study: Ladder) -> None:
    ids = own_ids(study, text.tokenizer_of(study.base()))
    ids["response_token_ids"][1].insert(0, 5)
    write(study, RESPONSES, **ids)
    with pytest.raises(SystemExit, match=r"1 of 2 responses of data\.parquet are other tokens than their own"):
        text.as_text(study, "data.parquet")


def test_responses_without_ids_are_only_ended(study: Ladder) -> None:
    write(study, [f"{RESPONSES[0]} ", RESPONSES[1]])
    rows = [text.json.loads(line) for line in text.as_text(study, "data.parquet").open()]
    assert [row["response"] for row in rows] == [f"{response}</s>" for response in RESPONSES]
    assert set(rows[0]) == {"id", "question", "answer", "response"}
