"""Responses as the text that stock SFT trains on, with the tokens that the base itself writes.

Without a chat template, stock SFT puts a space before the end token. A model that has learned this writes it, and the
text of its response then gets another one. So every text here ends with the end token, and nothing is put before it.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from openrlhf_cft.data.records import PROMPT_IDS, RESPONSE_IDS

if TYPE_CHECKING:
    from ladder.base import Ladder

MOST_OTHER = 0.1  # of the rows: the model may write a token that its tokenizer would not make of the same text


@functools.cache
def tokenizer_of(model: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def eos_of(model: str) -> str:
    return str(tokenizer_of(model).eos_token)


def ended_row(row: dict[str, Any], eos: str) -> dict[str, Any]:
    """A row whose response ends with the end token, without spaces before it."""
    return {**row, "response": row["response"].rstrip() + eos}


def as_text(study: Ladder, name: str) -> Path:
    """A data set of the results for stock SFT.

    Raises:
        SystemExit: more than a tenth of the annotated responses would be trained on as other tokens than their own.
    """
    model, rows = study.base(), pq.read_table(study.results / name).to_pylist()
    texts = [
        ended_row({key: row[key] for key in ("id", "question", "answer", "response")}, eos_of(model)) for row in rows
    ]
    known = [(row, text) for row, text in zip(rows, texts, strict=True) if row.get(RESPONSE_IDS) is not None]
    other = sum(ids_of(study, model, text) != [*row[PROMPT_IDS], *row[RESPONSE_IDS]] for row, text in known)
    if other > MOST_OTHER * len(known):
        raise SystemExit(
            f"evidence: as text, {other} of {len(known)} responses of {name} are other tokens than their own"
        )
    file = study.run_dir / "questions" / f"{Path(name).stem}-text.jsonl"
    write_whole(file, "".join(json.dumps(text) + "\n" for text in texts))
    return file


def ids_of(study: Ladder, model: str, row: dict[str, Any]) -> list[int]:
    """The tokens that stock SFT makes of a row."""
    _, template = study.form
    return list(
        tokenizer_of(model)(template.format(row["question"]) + row["response"], add_special_tokens=False)["input_ids"]
    )


def write_whole(file: Path, text: str) -> None:
    """Write a file that is whole or absent, also after a kill."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text)
    partial.replace(file)
