"""An evaluation as one HTML page that opens from disk: tables, embedded plots, and responses of the checkpoints.

The template and the style are `page.html` and `page.css`, beside this file. Text that a model wrote is escaped, and
`display` marks the characters in it that are invisible or reorder the text around them.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrlhf_cft import display
from openrlhf_cft.evaluation import text_report
from openrlhf_cft.evaluation.majority import normalised
from openrlhf_cft.evaluation.samples import SampledQuestion, SampledResponse

SHOWN_CHARS = 4_000  # of a text; the samples hold all of it


@dataclass(frozen=True)
class Image:
    """A plot as PNG, for a light and for a dark page."""

    light: bytes
    dark: bytes


@dataclass(frozen=True)
class Change:
    """From one checkpoint to another: the questions whose greedy responses became right, or became wrong."""

    first: str
    second: str
    gained: list[str]  # their ids
    lost: list[str]


@dataclass(frozen=True)
class Said:
    """The responses of one checkpoint to a question."""

    checkpoint: str
    greedy: SampledResponse
    correct: int  # of its samples
    samples: int
    answers: list[tuple[str, int, bool]]  # of the samples: text, count, whether correct; the most frequent first


@dataclass(frozen=True)
class Example:
    """A question, and the checkpoints' responses to it."""

    id: str
    question: str  # as the source has it
    prompt: str  # as it was rendered
    gold: str
    said: list[Said]


def example(question: str, prompt: str, questions: Mapping[str, SampledQuestion]) -> Example:
    """The same question, answered by several checkpoints. `questions` is keyed by their names."""
    first = next(iter(questions.values()))
    responses = [
        Said(name, q.greedy, sum(s.correct for s in q.samples), len(q.samples), _answers(q.samples))
        for name, q in questions.items()
    ]
    return Example(first.id, question, prompt, first.gold, responses)


def _answers(samples: Sequence[SampledResponse]) -> list[tuple[str, int, bool]]:
    """The answers of samples. Equal answers are listed as one, in the words of the first of them."""
    counts: Counter[str] = Counter()
    words: dict[str, tuple[str, bool]] = {}
    for sample in samples:
        key = "" if sample.answer is None else "=" + normalised(sample.answer)
        words.setdefault(key, (sample.answer if sample.answer is not None else "no answer", sample.correct))
        counts[key] += 1
    return [(words[key][0], count, words[key][1]) for key, count in counts.most_common()]


def visible(text: str) -> str:
    """A text as the page shows it: its beginning, with marks for hidden characters."""
    cut = "" if len(text) <= SHOWN_CHARS else f" … ({len(text) - SHOWN_CHARS} more characters)"
    return display.visible(text[:SHOWN_CHARS]) + cut


def render(
    metrics: Mapping[str, Any],
    plots: Mapping[str, Mapping[str, Image]],
    examples: Mapping[str, Sequence[Example]],
    changed: Mapping[str, Sequence[Change]],
) -> str:
    """Render the page.

    Args:
        metrics: the content of `metrics.json`.
        plots: by data set (`""` for plots that belong to none) and title.
        examples: by data set.
        changed: by data set, over all of its questions.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["visible"] = visible
    environment.filters["base64"] = lambda png: base64.b64encode(png).decode()
    template = environment.get_template("page.html")
    return template.render(metrics=metrics, plots=plots, examples=examples, changed=changed, table=text_report)
