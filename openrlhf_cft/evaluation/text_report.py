"""The figures as text: one row per figure, one column per checkpoint, and the paired differences to the first one.

print(tables(json.loads(location("evaluation/metrics.json").read_text())))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LABELS = {
    "accuracy": "greedy accuracy",
    "entropy": "entropy, nats a token",
    "distinct_answers": "distinct answers",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "distinct_3": "distinct-3",
    "greedy_length": "greedy: tokens",
    "greedy_cut_off": "  cut off",
    "greedy_unparsable": "  no answer found",
    "sampled_length": "sampled: tokens",
    "sampled_cut_off": "  cut off",
    "sampled_unparsable": "  no answer found",
    "critical_entropy": "entropy, critical tokens",
    "other_entropy": "entropy, other tokens",
    "critical_nll": "nll, critical tokens",
    "other_nll": "nll, other tokens",
}
DASH = "-"


def tables(metrics: Mapping[str, Any]) -> str:
    """The tables of all data sets, and of the annotated responses if there are any.

    Args:
        metrics: the content of `metrics.json`.
    """
    parts = []
    for dataset, results in metrics["results"].items():
        parts += [heading(metrics, dataset), figures_table({name: r["figures"] for name, r in results.items()})]
        parts.append(differences_table(metrics["differences"][dataset]))
    annotated = metrics.get("annotated")
    if annotated:
        parts += [annotated_heading(annotated), figures_table(annotated["figures"])]
        parts.append(differences_table(annotated["differences"]))
    return "\n\n".join(part for part in parts if part)


def main_figures(columns: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of the five figures that matter most, as far as any column has them."""
    found = names(columns)
    chosen = ["accuracy", "pass@1", *(_last(found, kind) for kind in ("pass@", "majority@")), "entropy"]
    return list(dict.fromkeys(name for name in chosen if name in found))


def _last(found: Sequence[str], kind: str) -> str | None:
    """The figure of one kind with the largest k."""
    return max(
        (name for name in found if name.startswith(kind)), key=lambda name: int(name.split("@")[1]), default=None
    )


def short_tables(metrics: Mapping[str, Any]) -> str:
    """As `tables`, but with only the figures that matter most, and without annotated responses."""
    parts = []
    for dataset, results in metrics["results"].items():
        columns = {name: result["figures"] for name, result in results.items()}
        chosen = main_figures(columns.values())
        kept = {name: {key: column[key] for key in chosen if key in column} for name, column in columns.items()}
        pairs = [
            {**pair, "figures": {key: pair["figures"][key] for key in chosen if key in pair["figures"]}}
            for pair in metrics["differences"][dataset]
        ]
        parts += [heading(metrics, dataset), figures_table(kept), differences_table(pairs)]
    return "\n\n".join(part for part in parts if part)


def heading(metrics: Mapping[str, Any], dataset: str) -> str:
    """The heading: `test: 48 questions, 8 samples each at temperature 1; entropy at 2048 positions`."""
    return f"{dataset}: {about(metrics, dataset)}"


def about(metrics: Mapping[str, Any], dataset: str) -> str:
    """What the figures of a data set were measured on, in words."""
    results = metrics["results"][dataset]
    first_result = next(iter(results.values()))
    text = f"{_counts(results)}, {sampling(metrics['settings'], first_result['samples_per_question'])}"
    if first_result["entropy_positions"]:
        positions = [result["entropy_positions"] for result in results.values()]
        text += f"; entropy at {span(positions)} positions"
        if not is_pure(metrics["settings"]):
            text += ", of the model at temperature 1"
    return text


def is_pure(settings: Mapping[str, Any]) -> bool:
    """Whether samples are drawn from the model's own distribution."""
    return bool(settings["temperature"] == 1 and settings["top_p"] == 1)


def sampling(settings: Mapping[str, Any], samples: int) -> str:
    """How samples were drawn: `8 samples each at temperature 1`."""
    if not samples:
        return "no samples"
    text = f"{samples} samples each at temperature {settings['temperature']:g}"
    return text if settings["top_p"] == 1 else f"{text}, top-p {settings['top_p']:g}"


def _counts(results: Mapping[str, Any]) -> str:
    """The number of questions, and of those that were left out."""
    text = f"{span([result['questions'] for result in results.values()])} questions"
    for key, words in (("too_long", "too long for the model"), ("failed", "not finished")):
        if any(result[key] for result in results.values()):
            text += f" ({span([result[key] for result in results.values()])} {words})"
    return text


def span(numbers: Sequence[int]) -> str:
    """`48`, or `40 to 48` if the numbers differ."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def annotated_heading(annotated: Mapping[str, Any]) -> str:
    """The heading of the annotated responses: how many there are, and how many of their tokens are critical."""
    return (
        f"annotated responses of {annotated['path']}: {annotated['responses']}, "
        f"{annotated['critical_positions']} of {annotated['positions']} tokens critical"
    )


def figures_table(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Figures with their intervals; a dash where one was not measured."""
    rows = [["", *columns]]
    for name in names(columns.values()):
        rows.append([label(name), *(cell(column.get(name), name) for column in columns.values())])
    return _aligned(rows)


def differences_table(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Every checkpoint minus the first one. An asterisk marks an interval that does not contain 0."""
    if not pairs:
        return ""
    base = pairs[0]["from"]
    columns = {f"{pair['to']} - {base}": pair for pair in pairs if pair["from"] == base}
    rows = [["", *columns]]
    for name in names(pair["figures"] for pair in columns.values()):
        cells = [difference_cell(pair["figures"].get(name), name) for pair in columns.values()]
        rows.append([label(name), *cells])
    if any("accuracy_p" in pair for pair in columns.values()):
        rows.insert(2, ["  McNemar's exact p", *(probability(pair.get("accuracy_p")) for pair in columns.values())])
    return _aligned(rows)


def names(columns: Iterable[Mapping[str, Any]]) -> list[str]:
    """The figures that any column has, each once, in their order."""
    return list(dict.fromkeys(name for column in columns for name in column))


def label(name: str) -> str:
    """A figure's name as people read it."""
    return LABELS.get(name) or name.replace("pass@", "Pass@").replace("majority@", "Majority@")


def cell(figure: Mapping[str, Any] | None, name: str) -> str:
    """A figure with its interval: `0.425 [0.383, 0.467]`."""
    if figure is None:
        return DASH
    return f"{number(figure['value'], name)}{interval(figure, name)}"


def difference_cell(figure: Mapping[str, Any] | None, name: str) -> str:
    """A difference with its interval: `+0.217 [+0.183, +0.250] *`."""
    if figure is None:
        return DASH
    return (
        f"{number(figure['value'], name, '+')}{interval(figure, name, '+')}{' *' if excludes_zero(figure) else '  '}"
    )


def interval(figure: Mapping[str, Any], name: str, sign: str = "") -> str:
    """` [0.383, 0.467]`, or nothing if the figure has no interval."""
    if figure["low"] is None:
        return ""
    return f" [{number(figure['low'], name, sign)}, {number(figure['high'], name, sign)}]"


def excludes_zero(figure: Mapping[str, Any]) -> bool:
    """Whether a difference has an interval that does not contain 0."""
    return figure["low"] is not None and (figure["low"] > 0 or figure["high"] < 0)


def number(value: float, name: str, sign: str = "") -> str:
    """A number with three decimals; lengths have one decimal, distinct answers have two."""
    digits = 1 if name.endswith("_length") else 2 if name == "distinct_answers" else 3
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # no minus before a zero


def probability(p: float | None) -> str:
    """A p-value."""
    if p is None or math.isnan(p):
        return DASH
    return f"{p:.3f}  " if p >= 0.001 else "< 0.001  "


def _aligned(rows: list[list[str]]) -> str:
    """The rows with aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
