"""Annotated rows as responses to show: each token with its characters, its weight and its counterfactuals.

    data = open_data("annotated")
    for response in read(data, tokenizer_of(data), mask="critical_mask", max_samples=1000).responses: ...

Only `data.token_text` decides what a token looks like; no text is split in another way. A row whose mask is null is
left out and counted.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Any

from openrlhf_cft.data import records
from openrlhf_cft.data.annotated import AnnotatedData, Row
from openrlhf_cft.data.records import ID, RESPONSE_IDS, Alternative, Sampled
from openrlhf_cft.data.token_text import CONTEXT, Piece, pieces, special_ids, token_text
from openrlhf_cft.errors import InputError
from openrlhf_cft.progress import Progress

ROLLOUT_TEXTS = ("text", "rollout")  # fields of an alternative that may hold the text of its rollout; the first counts
STATED = {item.name for item in fields(Alternative)}


@dataclass(frozen=True)
class Counterfactual:
    """One alternative, as text."""

    alternative: Alternative
    text: str  # what the token would add to the response
    name: str | None  # in the vocabulary, if the text does not show it: it is part of a character, or no character
    rollout: str | None  # the text of the rollout, if the data set holds it


@dataclass(frozen=True)
class ShownResponse:
    """One row. T response tokens."""

    id: str
    question: str
    gold: str | None  # the gold answer, if its column is known
    answer: str | None  # that the verifier found in the response
    verdict: str | None
    token_ids: list[int]  # (T,)
    names: list[str | None]  # (T,) as `Counterfactual.name`
    pieces: list[Piece]  # (T,)
    weights: list[float]  # (T,) >= 0
    counterfactuals: list[list[Counterfactual]]  # (T,) lists of A; they are empty if the data set has none
    sampled: list[Sampled] | None  # (T,) of the response's own tokens; None if the data set has none

    @property
    def critical(self) -> int:
        """The number of tokens with a weight."""
        return sum(weight > 0 for weight in self.weights)

    @property
    def text(self) -> str:
        """The response, without special tokens."""
        return "".join(piece.text for piece in self.pieces if not piece.special)


@dataclass(frozen=True)
class ShownData:
    """The responses of one data set, or the first of them."""

    name: str  # as the user gave it
    mask: str  # the column of the weights
    fingerprint: str  # of the tokenizer that its tokens are shown with
    metadata: dict[str, Any]  # the annotator's; empty if there is none
    job: dict[str, Any]  # the summary of the whole annotation job; empty if it is missing
    responses: list[ShownResponse] = field(repr=False)
    total: int  # rows in the data set
    without_mask: int  # rows that were read and left out because their mask is null

    @property
    def binary(self) -> bool:
        """Whether all weights are 0 or 1."""
        return all(weight in (0, 1) for response in self.responses for weight in response.weights)


def read(
    data: AnnotatedData,
    tokenizer: Any,
    mask: str = records.MASK,
    max_samples: int = 1000,
    only: Collection[str] | None = None,
) -> ShownData:
    """Read the first rows of a data set.

    Args:
        data: from `data.annotated.open_data`.
        tokenizer: from `data.tokenizer.tokenizer_of`.
        mask: the column of the weights.
        max_samples: read at most so many rows.
        only: read only the rows with these ids; None for all.

    Raises:
        InputError: the column is missing or does not hold weights, or no row has any.
    """
    try:
        data.require_weights(mask)
    except InputError as error:
        raise InputError(f"--mask: {error}") from None
    metadata, special = data.metadata, special_ids(tokenizer)
    responses, without = [], 0
    wanted = (row for row in data.rows(data.schema.names) if only is None or str(row[ID]) in only)
    for row in Progress("view", min(max_samples, data.count())).over(islice(wanted, max_samples)):
        if row[mask] is None or row[RESPONSE_IDS] is None:
            without += 1
        else:
            responses.append(_response(row, tokenizer, special, mask, metadata))
    if not responses:
        raise InputError(f"{data.name!r} has no row with weights in column {mask!r} to show")
    fingerprint = records.tokenizer_fingerprint(tokenizer)
    return ShownData(data.name, mask, fingerprint, metadata, _job(data), responses, data.count(), without)


def _response(row: Row, tokenizer: Any, special: set[int], mask: str, metadata: Mapping[str, Any]) -> ShownResponse:
    identity, ids, weights = row[ID], row[RESPONSE_IDS], row[mask]
    records.check_weights(identity, weights, ids, mask)
    shown = pieces(tokenizer, ids)
    names = [
        tokenizer.convert_ids_to_tokens(token) if piece.partial or piece.special or not piece.text else None
        for token, piece in zip(ids, shown, strict=True)
    ]
    stored = row.get(records.ALTERNATIVES) or [[] for _ in ids]
    if len(stored) != len(ids):
        raise InputError(f"row {identity!r}: alternatives at {len(stored)} positions for {len(ids)} response tokens")
    source = metadata.get("source") or {}
    question = _source_text(row, source.get("input_key"), "question") or _text(row.get(records.PROMPT)) or ""
    return ShownResponse(
        str(identity),
        question,
        _source_text(row, source.get("label_key"), "answer"),
        _text(row.get(records.ANSWER)),
        _text(row.get(records.VERDICT)),
        ids,
        names,
        shown,
        [float(weight) for weight in weights],
        [
            [
                _counterfactual(tokenizer, special, ids[max(0, index - CONTEXT) : index], value)
                for value in values or []
            ]
            for index, values in enumerate(stored)
        ],
        _sampled(row),
    )


def _sampled(row: Row) -> list[Sampled] | None:
    stored = row.get(records.SAMPLED)
    if stored is None:
        return None
    if len(stored) != len(row[RESPONSE_IDS]):
        raise InputError(f"row {row[ID]!r}: samples of {len(stored)} of {len(row[RESPONSE_IDS])} response tokens")
    return [Sampled(**value) for value in stored]


def _counterfactual(tokenizer: Any, special: set[int], before: list[int], value: dict[str, Any]) -> Counterfactual:
    # A column of a later or an earlier version may have more or fewer fields than ours.
    alternative = records.alternative_from_dict({key: item for key, item in value.items() if key in STATED})
    text = token_text(tokenizer, before, alternative.token_id, special)
    unsaid = not text or "\ufffd" in text or alternative.token_id in special
    name = tokenizer.convert_ids_to_tokens(alternative.token_id) if unsaid else None
    rollout = next((value[key] for key in ROLLOUT_TEXTS if value.get(key) is not None), None)
    return Counterfactual(alternative, text, name, _text(rollout))


def _source_text(row: Mapping[str, Any], key: str | None, usual: str) -> str | None:
    """A column of the source as text: the one that the annotator used, or else the usual one."""
    for name in filter(None, (key, usual)):
        stored = f"source_{name}" if name in records.ANNOTATION_COLUMNS else name
        if stored in row:
            return _text(row[stored])
    return None


def _text(value: Any) -> str | None:
    """A value as text; for chat messages, the content of each."""
    if isinstance(value, list) and all(isinstance(message, dict) and "content" in message for message in value):
        return "\n\n".join(str(message["content"]) for message in value)
    return None if value is None else str(value)


def _job(data: AnnotatedData) -> dict[str, Any]:
    """The summary of the annotation job, if it is still beside its data set; else empty."""
    summary = data.place / ".annotate" / "summary.json"
    return dict(json.loads(summary.read_text())) if data.place.is_dir() and summary.exists() else {}
