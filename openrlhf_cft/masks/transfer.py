"""`masks transfer`: turn annotated rows of one model into rows of another, in its tokens.

- With the same tokenizer the rows do not change.
- `characters`: every column of weights is carried by the characters of its tokens (`carry`).
- `score`: `critical_mask` marks the tokens that the target model itself finds least probable, as in the paper (arXiv
  2510.10974): with another tokenizer annotations cannot be reused, so a probability score picks the tokens instead.

Alternatives are tokens of the other model. They become null unless the tokenizer is the same, and so do other columns
with a number for each token. Rows that cannot be carried are left out and counted by reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openrlhf_cft.data.annotated import AnnotatedData, Row, with_record, write
from openrlhf_cft.data.location import Location
from openrlhf_cft.data.provenance import versions
from openrlhf_cft.data.records import (
    ALTERNATIVES,
    ID,
    MASK,
    METADATA_KEY,
    PROMPT,
    PROMPT_IDS,
    RESPONSE,
    RESPONSE_IDS,
    SAMPLED,
    annotation_fields,
    check_weights,
    tokenizer_fingerprint,
)
from openrlhf_cft.data.source import SourceSettings
from openrlhf_cft.data.tokenizer import fingerprint_of, load_tokenizer, tokenizer_of
from openrlhf_cft.engine.token_scores import BATCH_TOKENS, load_model, token_logprobs
from openrlhf_cft.errors import InputError
from openrlhf_cft.masks.agreement import agreement
from openrlhf_cft.masks.carry import NotCarried, carry, per_token
from openrlhf_cft.masks.coverage import Coverage
from openrlhf_cft.masks.derive import DERIVED
from openrlhf_cft.masks.retokenize import Carried, Retokenizer
from openrlhf_cft.masks.select import Budget, highest
from openrlhf_cft.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa

METHODS = ("characters", "score")
NO_WEIGHTS = "the row has no weights"
TOO_LONG = "the row is longer than the model takes"


@dataclass(frozen=True)
class Picking:
    """Which tokens `score` picks: those of the lowest probability."""

    threshold: float | None = None  # all tokens whose probability is below it; used first
    count: int | None = None  # used next: this many tokens of each row, or all if there are fewer
    budget: Budget = field(default_factory=Budget)  # used last: as many tokens as by characters, or a share

    def weights(self, logprobs_T: Sequence[float], row: Row) -> list[float]:
        """(T,) weights, 0 or 1, of natural log-probabilities; `row` has the mask by characters."""
        if self.threshold is not None:
            return [float(math.exp(logprob) < self.threshold) for logprob in logprobs_T]
        count = self.budget.count(row) if self.count is None else self.count
        return highest([-logprob for logprob in logprobs_T], count)


@dataclass(frozen=True)
class TransferSettings:
    """The settings of the command line."""

    to: str  # the target model, or a directory with its tokenizer where nothing is scored
    method: str = "characters"
    model: str | None = None  # the data set's model; None: the one that its metadata names
    rendering: SourceSettings | None = None  # None: prompts stay as they are
    picking: Picking = field(default_factory=Picking)
    dtype: str = "auto"
    batch_tokens: int = BATCH_TOKENS
    add_bos: str = "auto"  # see `SourceSettings`; of the target's prompts
    special_tokens: str = "auto"  # see `SourceSettings`


def transfer(data: AnnotatedData, settings: TransferSettings, out: Location) -> dict[str, Any]:
    """Write the rows of the target to `out`.

    Returns:
        `same_tokenizer`, and `Coverage.figures`.

    Raises:
        InputError: a column or a model is missing, a prompt holds special tokens that the target does not know, or no
            row can be carried.
    """
    job = _Transfer(data, settings)
    write(out, job.schema, job.batches())
    return {"method": settings.method, "same_tokenizer": job.same, **job.counts.figures()}


class _Transfer:
    """One run: the loaded models and tokenizers, and the counts."""

    def __init__(self, data: AnnotatedData, settings: TransferSettings) -> None:
        rendering = settings.rendering
        data.require(PROMPT, RESPONSE, PROMPT_IDS, MASK, *([rendering.input_key] if rendering else []))
        target = load_tokenizer(settings.to, "--to")
        fingerprint = tokenizer_fingerprint(target)
        self.same = fingerprint_of(data) == fingerprint
        source = target if self.same else tokenizer_of(data, settings.model)
        self.same = self.same or tokenizer_fingerprint(source) == fingerprint
        self.counts = Coverage()
        self._data, self._settings, self._target = data, settings, target
        literal = settings.special_tokens != "control"
        self._retokenize = Retokenizer(source, target, rendering, self.same, settings.add_bos, literal)
        self._model: Any = None
        self._length: int | None = None
        if settings.method == "score":
            self._model = load_model(settings.to, settings.dtype, flag="--to")
            self._length = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        known = {MASK, *data.metadata.get(DERIVED, {})}
        others = {} if self.same else per_token(data, [name for name in data.schema.names if name not in known])
        self._weights = [name for name in data.schema.names if name in known or others.get(name)]
        self._lost = (
            {ALTERNATIVES, SAMPLED, *(name for name in others if not others[name])} if not self.same else set()
        )
        self.schema = self._schema(fingerprint)

    def _schema(self, fingerprint: str) -> pa.Schema:
        """The columns as they are. The file metadata names the target, and keeps the source's under `transferred`."""
        before, settings = self._data.metadata, self._settings
        how: dict[str, Any] = {"method": settings.method, "from": self._data.name, "versions": versions()}
        if self._model is not None:
            how |= {**vars(settings.picking), "budget": vars(settings.picking.budget), "dtype": str(self._model.dtype)}
        if settings.rendering is not None:
            keys = ("input_key", "apply_chat_template", "input_template")
            how["rendering"] = {key: getattr(settings.rendering, key) for key in keys}
        kept = before if self.same else {key: before[key] for key in ("criterion", DERIVED) if key in before}
        recorded = {**kept, "model": settings.to, "tokenizer_fingerprint": fingerprint}
        if settings.method == "score":
            recorded["criterion"] = "score"
        metadata = {key: value for key, value in (self._data.schema.metadata or {}).items() if key != METADATA_KEY}
        schema = self._data.schema.with_metadata(metadata)
        for name in self._weights:  # carried and picked weights are floats, whatever they were
            index = schema.get_field_index(name)
            schema = schema.set(index, schema.field(index).with_type(annotation_fields()[MASK]))
        for key, value in {**recorded, "transferred": {**how, "metadata": before}}.items():
            schema = with_record(schema, key, value)
        return schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The target's rows."""
        import pyarrow as pa

        replaced = [PROMPT, RESPONSE, PROMPT_IDS, RESPONSE_IDS, *self._weights]
        needed = {ID, *replaced} | ({self._settings.rendering.input_key} if self._settings.rendering else set())
        progress = Progress(f"masks transfer, {self._settings.method}", self._data.count())
        for batch in self._data.batches():
            rows = batch.select([name for name in batch.schema.names if name in needed]).to_pylist()
            pairs = [(index, self._carried(row)) for index, row in enumerate(rows)]
            kept = {index: carried for index, carried in pairs if carried is not None}
            progress.add(len(rows) - len(kept))
            new = [self._row(rows[index], carried) for index, carried in kept.items()]
            self._score(new, progress)
            for (index, carried), row in zip(kept.items(), new, strict=True):
                self.counts.add(carried.source, rows[index][MASK], carried.target, row[MASK])
            if not new:
                continue
            chosen = batch.take(pa.array(list(kept)))
            columns = []
            for name, kind in zip(self.schema.names, self.schema.types, strict=True):
                if name in replaced:
                    columns.append(pa.array([row[name] for row in new], kind))
                elif name in self._lost:
                    columns.append(pa.nulls(len(new), kind))
                else:
                    columns.append(chosen.column(name))
            yield pa.RecordBatch.from_arrays(columns, schema=self.schema)
        if self.counts.dropped and not self.counts.rows:
            reasons = ", ".join(f"{count} because {reason}" for reason, count in self.counts.dropped.items())
            raise InputError(f"no row of {self._data.name!r} can be carried to {self._settings.to!r}: {reasons}")

    def _carried(self, row: Row) -> Carried | None:
        """The row in the target's tokens; None if it cannot be carried, which is counted."""
        try:
            if row[MASK] is None:
                raise NotCarried(NO_WEIGHTS)
            check_weights(row[ID], row[MASK], row[RESPONSE_IDS], MASK)
            carried = self._retokenize(row)
            if self._length and len(carried.prompt_ids) + len(carried.response_ids) > self._length:
                raise NotCarried(TOO_LONG)
            return carried
        except NotCarried as reason:
            self.counts.dropped[str(reason)] += 1
            self.counts.critical += sum(weight > 0 for weight in row[MASK] or [])
            return None

    def _row(self, row: Row, carried: Carried) -> Row:
        """The columns that change, all weights carried by characters."""
        new: Row = {
            ID: row[ID],
            PROMPT: carried.prompt,
            RESPONSE: carried.response,
            PROMPT_IDS: carried.prompt_ids,
            RESPONSE_IDS: carried.response_ids,
        }
        for name in self._weights:
            new[name] = None
            if row[name] is not None:
                check_weights(row[ID], row[name], row[RESPONSE_IDS], name)
                new[name] = carry(carried.source, row[name], carried.target)
        return new

    def _score(self, rows: list[Row], progress: Progress) -> None:
        """Replace the mask by characters with the mask of the picked tokens."""
        if self._model is None:
            progress.add(len(rows))
            return
        logprobs = token_logprobs(self._model, rows, self._settings.batch_tokens, progress)
        for row, logprobs_T in zip(rows, logprobs, strict=True):
            picked = self._settings.picking.weights(logprobs_T, row)
            self.counts.tokens += agreement(row[MASK], picked)
            row[MASK] = picked
