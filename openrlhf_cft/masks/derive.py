"""`masks derive`: compute new columns of weights from a stored data set.

    derive(data, [Wish("strict2", "strict-2"), Wish("chance", "random")], DeriveSettings(), out)

`SELECTIONS` maps the name of each selection to a function that prepares it. That function checks the data set and the
settings, loads what it needs, and returns a `Selection`, which turns rows into weights. A selection that needs a model
gets `BATCH_ROWS` rows at a time, and sorts them into batches of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openrlhf_cft.data.annotated import AnnotatedData, Row, with_record, write
from openrlhf_cft.data.location import Location
from openrlhf_cft.data.provenance import versions
from openrlhf_cft.data.records import ALTERNATIVES, ID, PROMPT_IDS, RESPONSE_IDS, SAMPLED, check_weights
from openrlhf_cft.data.token_text import Kind, pieces
from openrlhf_cft.data.tokenizer import load_tokenizer, require_same, tokenizer_of
from openrlhf_cft.engine import token_scores
from openrlhf_cft.errors import InputError
from openrlhf_cft.masks import from_alternatives
from openrlhf_cft.masks.select import Budget, highest
from openrlhf_cft.progress import Progress
from openrlhf_cft.verify import VERIFIERS

if TYPE_CHECKING:
    import pyarrow as pa

REFERENCE_FLAG = "--reference.model_name_or_path"
DERIVED = "derived"  # in the file metadata: by column, how it was made


@dataclass(frozen=True)
class Wish:
    """A column to make."""

    column: str
    how: str  # a name of `SELECTIONS`; for Strict-k with its k, as in strict-2


@dataclass(frozen=True)
class DeriveSettings:
    """The settings of the command line, apart from the columns."""

    budget: Budget = field(default_factory=Budget)  # of selections that take a number of tokens from each row
    threshold: float | None = None  # for the selection `threshold`, and of success rates for `strict-k`
    seed: int = 42  # for the selection `random`
    model: str | None = None  # whose tokenizer or probabilities are used; None: the one in the file metadata
    reference_model: str | None = None  # for `excess_loss`: its loss is subtracted from that of `model`
    dtype: str = "auto"  # of models that score
    batch_tokens: int = token_scores.BATCH_TOKENS


@dataclass(frozen=True)
class Selection:
    """How to compute weights from rows."""

    columns: tuple[str, ...]  # columns to read, besides `id` and `response_token_ids`
    weigh: Callable[[Sequence[Row]], list[list[float]]]  # (T,) weights of each row
    record: dict[str, Any]  # what decided the weights, for the file metadata


Prepare = Callable[[AnnotatedData, str, DeriveSettings], Selection]


def derive(data: AnnotatedData, wishes: Sequence[Wish], settings: DeriveSettings, out: Location) -> dict[str, float]:
    """Write the data set to `out` with a new column for each wish, after the others.

    Returns:
        By column, the share of response tokens whose weight is above 0. A column without a token is left out.

    Raises:
        InputError: a column exists already or is asked for twice, a selection is unknown, a selection needs data that
            are not stored, or no selection uses a setting that is given.
    """
    taken = set(data.schema.names)
    for wish in wishes:
        if wish.column in taken:
            raise InputError(f"--column: {wish.column!r} is there already")
        taken.add(wish.column)
    if settings.threshold is not None and len({wish.how == "threshold" for wish in wishes if _thresholds(wish)}) > 1:
        raise InputError(
            f"--threshold: {settings.threshold} is a success rate for strict-k and a score for threshold: derive one "
            "after the other"
        )
    selections = {wish.column: _prepare(data, wish.how, settings) for wish in wishes}
    budget, flags = settings.budget, {"reference_model": REFERENCE_FLAG}
    given = {"share": budget.share, "threshold": settings.threshold, "reference_model": settings.reference_model}
    for name, value in given.items():
        if value is not None and not any(name in selection.record for selection in selections.values()):
            flag = flags.get(name, f"--{name}")
            raise InputError(f"{flag}: {value} is unused by {', '.join(wish.how for wish in wishes)}")
    schema, record = data.schema, dict(data.metadata.get(DERIVED, {}))
    for wish in wishes:
        schema = schema.append(_field(wish.column))
        record[wish.column] = {"how": wish.how, **selections[wish.column].record, "versions": versions()}
    tokens: dict[str, int] = dict.fromkeys(selections, 0)
    positive: dict[str, int] = dict.fromkeys(selections, 0)
    write(out, with_record(schema, DERIVED, record), _derived(data, selections, schema, tokens, positive))
    return {name: positive[name] / tokens[name] for name in selections if tokens[name]}


def _thresholds(wish: Wish) -> bool:
    """Whether a selection takes `--threshold`."""
    return wish.how == "threshold" or wish.how.startswith("strict-")


def _prepare(data: AnnotatedData, how: str, settings: DeriveSettings) -> Selection:
    name = "strict" if how.startswith("strict-") else how
    if name not in SELECTIONS or how == "strict":
        known = ", ".join(sorted({*SELECTIONS, "strict-2"} - {"strict"}))
        raise InputError(f"--how: {how!r} is none of {known}")
    selection = SELECTIONS[name](data, how, settings)
    data.require(*selection.columns)
    data.require_weights(*(name for name in settings.budget.columns if name in selection.columns))
    return selection


def _field(name: str) -> pa.Field:
    import pyarrow as pa

    return pa.field(name, pa.list_(pa.float32()))


def _derived(
    data: AnnotatedData,
    selections: dict[str, Selection],
    schema: pa.Schema,
    tokens: dict[str, int],
    positive: dict[str, int],
) -> Iterator[pa.RecordBatch]:
    """The batches with their new columns; counts all tokens, and those with a weight above 0."""
    import pyarrow as pa

    needed = {ID, RESPONSE_IDS}.union(*(selection.columns for selection in selections.values()))
    progress = Progress("masks derive", data.count())
    for batch in data.batches():
        rows = batch.select([name for name in batch.schema.names if name in needed]).to_pylist()
        columns = list(batch.columns)
        for name, selection in selections.items():
            weights = selection.weigh(rows)
            for row, weights_T in zip(rows, weights, strict=True):
                check_weights(row[ID], weights_T, row[RESPONSE_IDS], name)
                tokens[name] += len(weights_T)
                positive[name] += sum(weight > 0 for weight in weights_T)
            columns.append(pa.array(weights, schema.field(name).type))
        progress.add(batch.num_rows)
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def by_row(columns: tuple[str, ...], weigh: Callable[[Row], list[float]], record: dict[str, Any]) -> Selection:
    """A selection that looks at one row at a time."""
    return Selection(columns, lambda rows: [weigh(row) for row in rows], record)


def _stored_k(data: AnnotatedData) -> int | None:
    """k of the stored annotation; None if the metadata does not say. The rows themselves are checked in any case."""
    name, _, k = str(data.metadata.get("criterion", "")).partition("-")
    return int(k) if name == "strict" and k.isdigit() else None


def _strict(data: AnnotatedData, how: str, settings: DeriveSettings) -> Selection:
    k, stored = how.removeprefix("strict-"), _stored_k(data)
    if not k.isdigit() or int(k) < 2:
        raise InputError(f"--how: {how!r} is no strict-k with a k of at least 2")
    if stored is not None and int(k) > stored:
        raise InputError(f"--how: {how!r} needs {int(k) - 1} alternatives, and {data.name!r} is strict-{stored}")
    threshold = settings.threshold
    if threshold is None:
        return by_row((ALTERNATIVES,), lambda row: from_alternatives.strict(row, int(k)), {"from": [ALTERNATIVES]})
    if not 0 < threshold <= 1:
        raise InputError(f"--threshold: {threshold}; `--how {how}` takes a success rate above 0 and at most 1")
    _require_samples(data, f"--how {how} --threshold {threshold}")
    record = {"from": [ALTERNATIVES], "threshold": threshold}
    return by_row((ALTERNATIVES,), lambda row: from_alternatives.strict_by_rate(row, int(k), threshold), record)


def _success_drop(data: AnnotatedData, how: str, settings: DeriveSettings) -> Selection:
    _require_samples(data, f"--how {how}")
    columns = (ALTERNATIVES, SAMPLED)
    return by_row(columns, from_alternatives.success_drop, {"from": list(columns)})


def _require_samples(data: AnnotatedData, asked: str) -> None:
    if SAMPLED not in data.schema.names:
        raise InputError(f"{asked}: {data.name!r} has no success rates: annotate with --annotate.samples")


def _failing_share(data: AnnotatedData, how: str, settings: DeriveSettings) -> Selection:
    return by_row((ALTERNATIVES,), from_alternatives.failing_share, {"from": [ALTERNATIVES]})


def _threshold(data: AnnotatedData, how: str, settings: DeriveSettings) -> Selection:
    threshold, metadata, k = settings.threshold, data.metadata, _stored_k(data)
    if threshold is None or not 0 < threshold <= 1:
        raise InputError(f"--threshold: {threshold}; `--how threshold` needs one above 0 and at most 1")
    accepted = metadata.get("threshold", 1.0 if metadata.get("verifier") in VERIFIERS else None)
    if accepted is None or k is None:
        raise InputError(f"--how threshold: the metadata of {data.name!r} names no criterion or no threshold")
    if threshold > accepted:
        raise InputError(
            f"--threshold: {threshold} is above the annotation's own {accepted}: give at most {accepted}, since the "
            "scores of the responses themselves are not stored"
        )
    record = {"from": [ALTERNATIVES], "threshold": threshold}
    return by_row((ALTERNATIVES,), lambda row: from_alternatives.rescored(row, k, threshold), record)


def _numbers(data: AnnotatedData, how: str, settings: DeriveSettings) -> Selection:
    tokenizer = tokenizer_of(data, settings.model)

    def weigh(row: Row) -> list[float]:
        return [float(piece.kind is Kind.DIGITS) for piece in pieces(tokenizer, row[RESPONSE_IDS])]

    return by_row((), weigh, {"from": [RESPONSE_IDS]})


def _random(data: AnnotatedData, how: str, settings: DeriveSettings) -> Selection:
    budget, seed = settings.budget, settings.seed

    def weigh(row: Row) -> list[float]:
        # Seeded by the row's own id, so that neither the order of the rows nor their number matters.
        chance = random.Random(f"{seed}\0{row[ID]}")
        return highest([chance.random() for _ in row[RESPONSE_IDS]], budget.count(row))

    return by_row(budget.columns, weigh, {"from": [ID, *budget.columns], "seed": seed, **vars(budget)})


def _scored(data: AnnotatedData, how: str, settings: DeriveSettings) -> Selection:
    """The tokens with the highest entropy or attention received (`token_scores`) under the model."""
    name = _checked_model(data, settings)
    model = token_scores.load_model(
        name, settings.dtype, attention=how == "attention", named=settings.model is not None
    )

    def score(rows: Sequence[Row]) -> Iterator[list[float]]:
        return token_scores.token_scores(model, rows, how, settings.batch_tokens)

    return _highest(score, settings, {"model": name})


def _excess_loss(data: AnnotatedData, how: str, settings: DeriveSettings) -> Selection:
    """The tokens whose nll under the model exceeds that under the reference model most.

    Source: the excess loss of Rho-1, arXiv 2404.07965. Its reference model was trained on data of high quality.
    """
    if settings.reference_model is None:
        raise InputError("--how excess_loss needs --reference.model_name_or_path")
    name, reference_name = _checked_model(data, settings), settings.reference_model
    require_same(data, load_tokenizer(reference_name, REFERENCE_FLAG), reference_name, REFERENCE_FLAG)
    model = token_scores.load_model(name, settings.dtype, named=settings.model is not None)
    reference = token_scores.load_model(reference_name, settings.dtype, flag=REFERENCE_FLAG)

    def score(rows: Sequence[Row]) -> Iterator[list[float]]:
        of_both = [
            token_scores.token_scores(checkpoint, rows, "nll", settings.batch_tokens)
            for checkpoint in (model, reference)
        ]
        for nll_T, reference_nll_T in zip(*of_both, strict=True):
            yield [a - b for a, b in zip(nll_T, reference_nll_T, strict=True)]

    return _highest(score, settings, {"model": name, "reference_model": reference_name})


def _checked_model(data: AnnotatedData, settings: DeriveSettings) -> str:
    """The name of the model that scores. Checks its tokenizer against the data set; does not load its weights."""
    data.require(PROMPT_IDS, *settings.budget.columns)
    tokenizer_of(data, settings.model)
    return str(settings.model or data.metadata["model"])


def _highest(
    score: Callable[[Sequence[Row]], Iterator[list[float]]], settings: DeriveSettings, record: dict[str, Any]
) -> Selection:
    """A selection of the tokens with the highest scores."""
    budget = settings.budget

    def weigh(rows: Sequence[Row]) -> list[list[float]]:
        return [highest(scores_T, budget.count(row)) for row, scores_T in zip(rows, score(rows), strict=True)]

    made_from = {"from": [PROMPT_IDS, RESPONSE_IDS, *budget.columns], "dtype": settings.dtype}
    return Selection((PROMPT_IDS, *budget.columns), weigh, {**made_from, **record, **vars(budget)})


SELECTIONS: dict[str, Prepare] = {
    "strict": _strict,
    "failing_share": _failing_share,
    "success_drop": _success_drop,
    "threshold": _threshold,
    "numbers": _numbers,
    "random": _random,
    "entropy": _scored,
    "attention": _scored,
    "excess_loss": _excess_loss,
}
