"""A data-set card: README.md with the front matter that the Hugging Face hub reads. The text is in `card.md`.

    text = card(open_data("annotated"), MASK, CardSettings(license="apache-2.0", language=("en",)))

It shows no paths of the machine that made it: only the last name of an absolute path is kept.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrlhf_cft.data.annotated import AnnotatedData
from openrlhf_cft.data.mask_hints import made_by_counterfactuals, mask_hints
from openrlhf_cft.data.records import ANNOTATION_COLUMNS, SAMPLED, Verdict
from openrlhf_cft.masks.derive import DERIVED
from openrlhf_cft.masks.stats import SKIPPED, stats

TEMPLATE = Path(__file__).with_name("card.md")
TAGS = ("critical-tokens", "critical-token-fine-tuning", "token-weights", "openrlhf", "sft")
TOOLS = {"trl": "trl", "axolotl": "axolotl", "llamafactory": "llama-factory"}  # tags of the hub, by format
UNITS = ("", "K", "M", "B")
SHOWN = ("model", "dtype", "criterion", "verifier", "threshold", "tokenizer_fingerprint")
HISTORY = ("transferred", "sampled")  # what verbs of `masks` record in the file metadata, beside `derived`


@dataclass(frozen=True)
class CardSettings:
    """Facts that only the publisher of the data set knows."""

    license: str = "unknown"  # as the hub names it, for example apache-2.0
    language: tuple[str, ...] = ()  # ISO 639 codes


def card(data: AnnotatedData, mask: str, settings: CardSettings) -> str:
    """The card of an annotated data set, to be stored beside its Parquet files.

    Raises:
        InputError: there is no such column, or weights do not fit their tokens.
    """
    return render(data, mask, stats(data, mask), settings, "*.parquet", {"format": "annotated"})


def render(
    data: AnnotatedData,
    mask: str,
    figures: dict[str, Any],
    settings: CardSettings,
    data_files: str,
    described: dict[str, Any],
) -> str:
    """The text of a card.

    Args:
        data: the annotated data set, whose metadata is shown.
        mask: the column of weights.
        figures: `Stats.figures` of the rows that the card is about.
        settings: facts that the metadata does not hold.
        data_files: pattern of the files that `datasets.load_dataset` reads.
        described: `format`, and the other values that the template shows for it.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    title = f"Critical tokens of {_line(_public(data.metadata.get('model', 'a language model')))}"
    front = DatasetCardData(
        language=list(settings.language) or None,
        license=settings.license,
        pretty_name=title,
        task_categories=["text-generation"],
        size_categories=[size_category(figures["rows"])],
        annotations_creators="machine-generated",
        tags=[*TAGS, *([TOOLS[described["format"]]] if described["format"] in TOOLS else [])],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": data_files}]}],
    )
    own = [name for name in data.schema.names if name not in ANNOTATION_COLUMNS and name != mask]
    values: dict[str, Any] = {"title": title, "mask": mask, "figures": figures, "made": _made(data.metadata, mask)}
    values |= {"hints": _hints(data.metadata, mask, figures), "samples": SAMPLED in data.schema.names}
    values |= {"own_columns": own, "versions": data.metadata.get("versions", {}), **described}
    text = DatasetCard.from_template(front, template_path=str(TEMPLATE), **values)
    return str(text).rstrip() + "\n"


def _hints(metadata: dict[str, Any], mask: str, figures: dict[str, Any]) -> list[str]:
    """Hints at likely problems of the mask, see `data.mask_hints`."""
    if not made_by_counterfactuals(mask, metadata.get("criterion")) or mask in metadata.get(DERIVED, {}):
        return []
    verdicts = figures.get("verdicts_of_alternatives", {})
    rollouts = sum(count for verdict, count in verdicts.items() if verdict != SKIPPED)
    cut_off = verdicts.get(Verdict.TRUNCATED.value, 0)
    return mask_hints(figures["critical_tokens"], figures["tokens"], cut_off, rollouts)


def size_category(rows: int) -> str:
    """The hub's name for a number of rows, such as `1K<n<10K`."""
    if rows < 1000:
        return "n<1K"
    power = len(str(rows)) - 1  # the size is between 10^power and ten times that
    if power >= 12:
        return "n>1T"
    low, high = (f"{10 ** (p % 3)}{UNITS[p // 3]}" if p < 12 else "1T" for p in (power, power + 1))
    return f"{low}<n<{high}"


def _made(metadata: dict[str, Any], mask: str) -> dict[str, str]:
    """How the masks were made, according to the metadata: names and values to show."""
    shown = {name: metadata[name] for name in SHOWN if metadata.get(name) is not None}
    decoding, source = metadata.get("decoding") or {}, metadata.get("source") or {}
    shown |= {f"decoding: {name}": value for name, value in decoding.items()}
    shown |= {f"source: {name}": value for name, value in source.items() if value is not None}
    changes = {DERIVED: (metadata.get(DERIVED) or {}).get(mask), **{name: metadata.get(name) for name in HISTORY}}
    for change, record in changes.items():
        plain = {name: value for name, value in (record or {}).items() if not isinstance(value, dict)}
        shown |= {f"{change}: {name}": value for name, value in plain.items() if value is not None}
    if "transferred" in metadata:
        shown["transferred: from model"] = metadata["transferred"].get("metadata", {}).get("model", "unknown")
    return {name.replace("_", " "): _line(_public(value)).replace("|", "\\|") for name, value in shown.items()}


def _public(value: Any) -> Any:
    """A value without folders: of absolute paths, also of several with commas between them, only the last names."""
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",")]
    if not any(map(os.path.isabs, parts)):
        return value
    return ",".join(os.path.basename(part.rstrip("/")) if os.path.isabs(part) else part for part in parts)


def _line(value: Any) -> str:
    """A value in one line, which is all that a table or a heading takes."""
    return " ".join(str(value).split())
