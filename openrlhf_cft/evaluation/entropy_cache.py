"""Entropies at the positions of given responses, kept in Parquet: measured once per checkpoint and set of responses.

A file has one row per response. Its metadata identify the model and the tokens: the same choice of responses is read
from the file, another one is measured again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openrlhf_cft.data.location import Location
from openrlhf_cft.data.model_files import weights_fingerprint
from openrlhf_cft.data.parquet import whole_file
from openrlhf_cft.data.records import ID, MASK, PROMPT_IDS, RESPONSE_IDS, check_weights, read_metadata, read_rows
from openrlhf_cft.engine.scoring_process import PromptResponse, Scored, score
from openrlhf_cft.errors import InputError
from openrlhf_cft.evaluation.entropy import Key, choose

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

METADATA_KEY = b"openrlhf_cft_entropy"


@dataclass(frozen=True)
class Unit:
    """Responses that are measured together, and the file that keeps their entropies."""

    file: Location
    keys: list[Key]
    sequences: list[PromptResponse]

    def fingerprint(self, model: str) -> bytes:
        """A hash of the model and the responses. A file with another hash is not valid for this unit."""
        digest = hashlib.sha256(f"{model} {weights_fingerprint(model)}".encode())
        for key, sequence in zip(self.keys, self.sequences, strict=True):
            digest.update(repr((key, sequence)).encode())
        return digest.hexdigest().encode()


@dataclass(frozen=True)
class AnnotatedResponses:
    """Some responses of an annotated data set, which checkpoints score."""

    path: str
    fingerprint: str  # of the tokenizer
    keys: list[Key]
    sequences: list[PromptResponse]
    weights: list[list[float]]  # (T,) of each


def sample_unit(samples: Location, prompts: Location, file: Location, positions: int, seed: int) -> Unit:
    """The samples of one checkpoint and data set whose entropies are measured.

    Args:
        samples: a samples file (`samples.py`).
        prompts: the rendered prompts of its questions.
        file: the file that keeps the entropies.
        positions: how many positions are wanted.
        seed: of the choice.
    """
    heads = [row for row in samples.rows([ID, "greedy", "number", "length"]) if not row["greedy"]]
    keys = choose({(row[ID], row["number"]): row["length"] for row in heads}, positions, seed)
    chosen = set(keys)
    asked = {row_id for row_id, _ in keys}
    prompt_ids = {row[ID]: row[PROMPT_IDS] for row in prompts.rows([ID, PROMPT_IDS]) if row[ID] in asked}
    rows = samples.rows([ID, "greedy", "number", RESPONSE_IDS])
    response_ids = {(row[ID], row["number"]): row[RESPONSE_IDS] for row in rows if _is_chosen(row, chosen)}
    return Unit(file, keys, [PromptResponse(prompt_ids[key[0]], response_ids[key]) for key in keys])


def _is_chosen(row: dict[str, object], chosen: set[Key]) -> bool:
    return not row["greedy"] and (row[ID], row["number"]) in chosen


def load_annotated(path: str, positions: int, seed: int) -> AnnotatedResponses:
    """Choose whole responses of an annotated data set by a seed, until they hold `positions` tokens.

    Raises:
        InputError: it is not an annotated data set, no row has a mask, or a mask does not fit its response.
    """
    metadata = read_metadata(path)
    if metadata is None or "tokenizer_fingerprint" not in metadata:
        raise InputError(f"--eval.annotated: {path!r} is no annotated data set")
    masks = (row.get(MASK) for row in read_rows(path, [MASK]))
    lengths = {(str(number), 0): len(mask) for number, mask in enumerate(masks) if mask is not None}
    keys = choose(lengths, positions, seed)
    if not keys:
        raise InputError(f"--eval.annotated: {path!r} has no row with a {MASK}")
    chosen = {number for number, _ in keys}
    rows = enumerate(read_rows(path, [ID, PROMPT_IDS, RESPONSE_IDS, MASK]))
    rows_by_key = {(str(number), 0): row for number, row in rows if str(number) in chosen}
    for number, _ in keys:
        row = rows_by_key[number, 0]
        try:
            check_weights(row.get(ID, number), row[MASK], row[RESPONSE_IDS], MASK)
        except InputError as error:
            raise InputError(f"--eval.annotated: {error}") from None
    sequences = [PromptResponse(rows_by_key[key][PROMPT_IDS], rows_by_key[key][RESPONSE_IDS]) for key in keys]
    return AnnotatedResponses(
        path, metadata["tokenizer_fingerprint"], keys, sequences, [rows_by_key[key][MASK] for key in keys]
    )


def measure_units(model: str, units: Sequence[Unit], name: str) -> list[dict[Key, Scored]]:
    """The entropies of each unit. Known ones are read; one process, which loads the model once, measures all others.

    Args:
        model: path or hub name of the checkpoint.
        units: what to measure.
        name: for the progress lines.

    Raises:
        JobError: the model could not be run.
    """
    pending = [unit for unit in units if unit.sequences and not _is_known(unit, model)]
    if pending:
        sequences = [sequence for unit in pending for sequence in unit.sequences]
        tokens = sum(len(sequence.response_ids) for sequence in sequences)
        logger.info("%s: exact entropies at %d positions of %d responses", name, tokens, len(sequences))
        scored = iter(score(model, sequences, name))
        for unit in pending:
            _write(unit, model, [next(scored) for _ in unit.keys])
    return [_read(unit) if unit.sequences else {} for unit in units]


def _is_known(unit: Unit, model: str) -> bool:
    import pyarrow.parquet as pq

    if not unit.file.exists():
        return False
    with unit.file.open_input() as file:
        stored = pq.read_schema(file).metadata or {}
    return stored.get(METADATA_KEY) == unit.fingerprint(model)


def _schema(unit: Unit, model: str) -> pa.Schema:
    import pyarrow as pa

    numbers = pa.list_(pa.float32())
    fields = [(ID, pa.string()), ("number", pa.int32()), ("entropy", numbers), ("nll", numbers)]
    about = json.dumps({"model": model, "dtype": "float32", "unit": "nats"}).encode()
    return pa.schema(fields, metadata={METADATA_KEY: unit.fingerprint(model), b"openrlhf_cft": about})


def _write(unit: Unit, model: str, scored: list[Scored]) -> None:
    """Write the file of a unit, whole or not at all."""
    import pyarrow as pa

    rows = [
        {ID: row_id, "number": number, "entropy": response.entropy, "nll": response.nll}
        for (row_id, number), response in zip(unit.keys, scored, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema=_schema(unit, model))
    with whole_file(unit.file, table.schema) as writer:
        writer.write_table(table)


def _read(unit: Unit) -> dict[Key, Scored]:
    scored = {}
    for row in unit.file.rows():
        entropy, nll = (np.array(row[name], np.float32) for name in ("entropy", "nll"))
        scored[row[ID], row["number"]] = Scored(entropy, nll)
    return scored
