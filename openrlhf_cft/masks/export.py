"""`masks export`: an annotated data set in the formats of other trainers.

    export(data, ExportSettings("trl"), CardSettings(), local_output("for-trl", data))

| format | files | the mask |
|---|---|---|
| trl | Parquet under `data/`, pre-tokenized | `labels`, -100 off the mask |
| axolotl | `train.jsonl`, pre-tokenized | `labels`, -100 off the mask |
| llamafactory | `train.json` with `dataset_info.json`, and `tokenized/` | spans, and `labels` in `tokenized/` |
| sharegpt | `train.json` | spans of characters, with weights |
| jsonl | `train.jsonl`, all columns | as it is |

The folder appears whole or not at all, with a data-set card that says how to load it. Skipped rows are counted.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrlhf_cft.data.annotated import AnnotatedData, Row, make_unfinished, output, unfinished
from openrlhf_cft.data.location import Location, location, named_if_full, without_credentials
from openrlhf_cft.data.records import ID, MASK, PROMPT, PROMPT_IDS, RESPONSE_IDS, check_weights
from openrlhf_cft.errors import InputError
from openrlhf_cft.masks.conversation import question_column
from openrlhf_cft.masks.dataset_card import CardSettings, render
from openrlhf_cft.masks.formats import FORMATS, SPOKEN, Source
from openrlhf_cft.masks.stats import Stats
from openrlhf_cft.progress import Progress
from openrlhf_cft.verify.reward_file import ROUNDING

NO_CRITICAL, NO_WEIGHTS = "without a critical token", "without weights"


@dataclass(frozen=True)
class ExportSettings:
    """The settings of the command line."""

    format: str  # of `FORMATS`
    mask: str = MASK  # column of the weights
    threshold: float | None = None  # weights of at least this become 1, the others 0; None: weights stay as they are
    keep_empty: bool = False  # rows without a critical token are exported too
    model: str | None = None  # the model whose tokenizer to use; None: the one that the file metadata names
    input_key: str | None = None  # column of the question or its messages; None: the annotated one


def export(data: AnnotatedData, settings: ExportSettings, card: CardSettings, out: Location) -> dict[str, Any]:
    """Write the data set in another format to the folder `out`, which `local_output` returned.

    Returns:
        `Stats.figures` of the exported rows, `longest_sequence` in tokens, and `skipped`: rows by reason.

    Raises:
        InputError: a column or a tokenizer is missing, weights do not fit their tokens or the format, no row is left.
    """
    _check(data, settings)
    kind = FORMATS[settings.format]
    rows = _Rows(data, settings)
    question = settings.input_key or question_column(data)
    with _whole(out) as folder:
        kind.write(folder, Source(data, rows, settings.mask, settings.model, question))
        figures = rows.figures()
        facts = {"format": settings.format, "question": question, "threshold": settings.threshold}
        text = render(data, settings.mask, figures, card, kind.data_files, facts)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return figures


def local_output(path: str | Path, data: AnnotatedData) -> Location:
    """`data.annotated.output` for an export, which is always written to a local folder.

    Raises:
        InputError: as in that function, or the path is a URI of another filesystem.
    """
    if "://" in str(path) and not location(path).is_local:
        raise InputError(f"--out: {without_credentials(str(path))!r} is no local folder, which exports are written to")
    return output(path, [data])


def _check(data: AnnotatedData, settings: ExportSettings) -> None:
    """Refuse at once settings that would only fail later."""
    if settings.format not in FORMATS:
        raise InputError(f"--format: {settings.format!r} is none of {', '.join(FORMATS)}")
    if settings.threshold is not None:
        if settings.threshold <= 0:
            raise InputError(f"--threshold: {settings.threshold} is not above 0, so every token would be critical")
        if settings.format == "jsonl":
            raise InputError("--threshold: jsonl carries all columns as they are; masks derive makes new ones")
    spoken = settings.format in SPOKEN
    if settings.input_key is not None and not spoken:
        raise InputError(f"--data.input_key: {settings.format} has no conversations, only {' and '.join(SPOKEN)} have")
    data.require(ID, PROMPT_IDS, RESPONSE_IDS, *([settings.input_key or PROMPT] if spoken else []))
    data.require_weights(settings.mask)


class _Rows:
    """The rows to export, with their weights. Counts the rows of the last pass."""

    def __init__(self, data: AnnotatedData, settings: ExportSettings) -> None:
        self._data, self._settings = data, settings
        self._begin()

    def _begin(self) -> None:
        self._stats, self._skipped, self._longest = Stats(self._settings.mask), Counter[str](), 0

    def __call__(self, columns: Sequence[str] | None) -> Iterator[Row]:
        """The rows with some columns, or with all."""
        self._begin()
        mask, wanted = self._settings.mask, set(columns or self._data.schema.names)
        read = wanted | {ID, PROMPT_IDS, RESPONSE_IDS, mask}
        progress = Progress("masks export", self._data.count())
        for row in progress.over(self._data.rows(list(read))):
            weights = self._weights(row)
            if weights is None:
                continue
            row[mask] = weights
            self._stats.add({name: row[name] for name in (ID, RESPONSE_IDS, mask)})
            self._longest = max(self._longest, len(row[PROMPT_IDS]) + len(row[RESPONSE_IDS]))
            yield {name: value for name, value in row.items() if name in wanted}
        if self._longest == 0:
            raise InputError(f"no row of {self._data.name!r} has a critical token in column {mask!r}")

    def _weights(self, row: Row) -> list[float] | None:
        """The row's weights; None if the row is skipped, which is counted."""
        mask, threshold = self._settings.mask, self._settings.threshold
        if row[mask] is None:
            self._skipped[NO_WEIGHTS] += 1
            return None
        check_weights(row[ID], row[mask], row[RESPONSE_IDS], mask)
        weights: list[float] = row[mask]
        if threshold is not None:
            weights = [float(weight >= threshold - ROUNDING) for weight in weights]  # they are stored as float32
        if not any(weights) and not self._settings.keep_empty:
            self._skipped[NO_CRITICAL] += 1
            return None
        return weights

    def figures(self) -> dict[str, Any]:
        """The figures of the last pass."""
        return {**self._stats.figures(), "longest_sequence": self._longest, "skipped": dict(self._skipped)}


@contextmanager
def _whole(out: Location) -> Iterator[Path]:
    """A folder to write into. It gets its final name if all goes well, and is deleted otherwise."""
    target, partial = Path(out.path), Path(unfinished(out).path)
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
    make_unfinished(out)
    try:
        with named_if_full(out):
            yield partial
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial)
        raise


def export_text(figures: dict[str, Any], settings: ExportSettings, out: Location) -> str:
    """The result of an export, in a line or two."""
    counts = f"{figures['rows']} rows, {figures['critical_tokens']} critical of {figures['tokens']} response tokens"
    lines = [f"masks export: {counts}, {settings.format}, in {out}; its README.md says how to load it"]
    lines += [f"masks export: {count} rows {reason} are left out" for reason, count in figures["skipped"].items()]
    return "\n".join(lines)
