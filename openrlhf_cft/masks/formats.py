"""Write the files of each export format. `FORMATS` maps a name to a function of a folder and the rows.

`labels` are -100 where the weight is 0, and the token id elsewhere. They are not shifted: the model's loss does that.
They can express only the weights 0 and 1. Spans (`conversation`) can express any weight.

Sources of the formats: TRL 1.16 `SFTTrainer._prepare_dataset`, which leaves `input_ids` and `labels` as they are;
axolotl `docs/dataset-formats/tokenized.qmd`; LLaMA-Factory `data/README.md`, and `tokenized_path` in its
`data/loader.py`, which is `datasets.load_from_disk`.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from openrlhf_cft.data.annotated import AnnotatedData, Row, write
from openrlhf_cft.data.location import BATCH_ROWS, location
from openrlhf_cft.data.loss_mask import labels
from openrlhf_cft.data.records import ID, PROMPT, PROMPT_IDS, RESPONSE_IDS
from openrlhf_cft.data.token_text import decode, pieces
from openrlhf_cft.data.tokenizer import tokenizer_of
from openrlhf_cft.errors import InputError
from openrlhf_cft.masks.conversation import spans, turns

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "critical_tokens"  # name of the data set in LLaMA-Factory


@dataclass(frozen=True)
class Source:
    """The data that are exported."""

    data: AnnotatedData
    rows: Callable[[Sequence[str] | None], Iterator[Row]]  # at least one; some columns or all; a new pass per call
    mask: str  # column of the weights in these rows
    model: str | None  # the model whose tokenizer to use; None: the one that the file metadata names
    question: str | None  # column of the question or messages; None: the prompt as it was rendered


@dataclass(frozen=True)
class Format:
    """One export format."""

    write: Callable[[Path, Source], None]  # into an empty folder
    data_files: str  # pattern of the files that `datasets.load_dataset` reads


def _trl(folder: Path, source: Source) -> None:
    _write_labels(folder / "data", source, ("input_ids", "labels"))


def _axolotl(folder: Path, source: Source) -> None:
    with open(folder / "train.jsonl", "w") as file:
        file.writelines(_line(row) for row in _labelled(source))


def _sharegpt(folder: Path, source: Source) -> None:
    """A JSON array with one element per line."""
    with open(folder / "train.json", "w") as file:
        for number, row in enumerate(_conversations(source)):
            file.write(("[\n" if number == 0 else ",\n") + _line(row).rstrip("\n"))
        file.write("\n]\n")


def _llamafactory(folder: Path, source: Source) -> None:
    _sharegpt(folder, source)
    description = {"file_name": "train.json", "formatting": "sharegpt", "columns": {"messages": "conversations"}}
    (folder / "dataset_info.json").write_text(json.dumps({NAME: description}, indent=2) + "\n")
    import datasets

    # LLaMA-Factory does not know spans. To train with the mask it needs a data set that is tokenized already.
    with TemporaryDirectory(dir=folder) as scratch:
        _write_labels(Path(scratch) / "data", source, ("input_ids", "attention_mask", "labels"))
        files = [str(file) for file in sorted(Path(scratch, "data").glob("*.parquet"))]
        train = datasets.Dataset.from_parquet(files, cache_dir=f"{scratch}/cache")
        datasets.DatasetDict({"train": train}).save_to_disk(folder / "tokenized")


def _jsonl(folder: Path, source: Source) -> None:
    with open(folder / "train.jsonl", "w") as file:
        file.writelines(_line(row) for row in source.rows(None))


SPOKEN = ("llamafactory", "sharegpt")  # the `FORMATS` that are conversations
FORMATS = {
    "trl": Format(_trl, "data/*.parquet"),
    "axolotl": Format(_axolotl, "train.jsonl"),
    "llamafactory": Format(_llamafactory, "train.json"),
    "sharegpt": Format(_sharegpt, "train.json"),
    "jsonl": Format(_jsonl, "train.jsonl"),
}


def _labelled(source: Source) -> Iterator[dict[str, list[int]]]:
    for row in source.rows([ID, PROMPT_IDS, RESPONSE_IDS, source.mask]):
        try:
            ids, wanted = labels(row[PROMPT_IDS], row[RESPONSE_IDS], row[source.mask])
        except InputError as error:
            more = "; --threshold X turns each into 0 or 1, --format sharegpt keeps them"
            raise InputError(f"row {row[ID]!r}: column {source.mask!r}: {error}{more}") from None
        yield {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": wanted}


def _write_labels(folder: Path, source: Source, columns: Sequence[str]) -> None:
    import pyarrow as pa

    schema = pa.schema([(name, pa.list_(pa.int32())) for name in columns])

    def batches() -> Iterator[pa.RecordBatch]:
        rows = _labelled(source)
        while batch := list(islice(rows, BATCH_ROWS)):
            yield pa.RecordBatch.from_pylist(batch, schema)  # columns that the schema lacks are left out

    write(location(folder), schema, batches())


def _conversations(source: Source) -> Iterator[dict[str, Any]]:
    tokenizer = tokenizer_of(source.data, source.model)
    for row in source.rows([ID, RESPONSE_IDS, source.mask, source.question or PROMPT]):
        messages = turns(row, source.question)
        critical_spans = spans(pieces(tokenizer, row[RESPONSE_IDS]), row[source.mask])
        yield {
            ID: row[ID],
            "conversations": [*messages, {"from": "gpt", "value": decode(tokenizer, row[RESPONSE_IDS])}],
            "critical_spans": [{"message": len(messages), **asdict(span)} for span in critical_spans],
        }


def _line(row: Row) -> str:
    """One JSON object, ASCII, on a line of its own."""
    return json.dumps(_plain(row), default=_as_json, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Replace NaN and infinite floats with null, because JSON cannot express them."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_json(value: Any) -> Any:
    """Convert types that JSON lacks: NumPy numbers to numbers, bytes to base 64, others (dates, decimals) to text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.item() if hasattr(value, "item") else str(value)
