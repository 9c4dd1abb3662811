"""The plots and the page of an evaluation, written from `metrics.json` and the samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

from openrlhf_cft.data.location import Location
from openrlhf_cft.data.records import ID, PROMPT
from openrlhf_cft.evaluation import plots
from openrlhf_cft.evaluation.page import Change, Example, Image, example, render
from openrlhf_cft.evaluation.samples import SampledQuestion, read_questions

EXAMPLES, CHANGED = 10, 30  # questions shown per data set; the most shown on which checkpoints disagree

Correct = Mapping[str, Mapping[str, bool]]  # whether the greedy response is correct: by checkpoint, by question's id
Draw = tuple[str, Callable[[], bytes | None]]  # a file's name, and what draws it


@dataclass(frozen=True)
class Asked:
    """The questions of a data set."""

    prompts: Location  # as rendered for one of the checkpoints
    column: str  # of the source, with the questions


def write_report(output_dir: Location, metrics: Mapping[str, Any], asked: Mapping[str, Asked]) -> None:
    """Write `plots/*.png` and `report.html`.

    Args:
        output_dir: of the evaluation; `samples/` is read.
        metrics: the content of `metrics.json`.
        asked: by data set.
    """
    drawn: dict[str, dict[str, Image]] = {}
    shown: dict[str, list[Example]] = {}
    changed: dict[str, list[Change]] = {}
    for dataset, results in metrics["results"].items():
        draw: dict[str, Draw] = {
            f"Pass@k and majority@k on {dataset}": (f"passes-{dataset}", partial(plots.passes, metrics, dataset)),
            f"Paired differences on {dataset}": (
                f"differences-{dataset}",
                partial(plots.differences, metrics, dataset),
            ),
            f"Entropy by position on {dataset}": (f"entropy-{dataset}", partial(plots.entropies, metrics, dataset)),
        }
        drawn[dataset] = _drawn(draw, output_dir)
        files = {name: output_dir / "samples" / f"{dataset}--{name}.parquet" for name in results}
        correct = {name: _greedy(file) for name, file in files.items()}
        changed[dataset] = changes(correct)
        shown[dataset] = examples(files, correct, asked[dataset])
    title = "Entropy and loss on critical and on other tokens"
    drawn[""] = _drawn({title: ("critical", partial(plots.kinds, metrics))}, output_dir)
    (output_dir / "report.html").write_text(render(metrics, drawn, shown, changed))


def _drawn(images: Mapping[str, Draw], output_dir: Location) -> dict[str, Image]:
    """Draw the plots that have data, by title. The light ones are written as files, too."""
    found: dict[str, Image] = {}
    for title, (name, draw) in images.items():
        pair = []
        for dark in (False, True):
            with plots.theme(dark):
                pair.append(draw())
        light, dark_png = pair
        if light is not None and dark_png is not None:
            (output_dir / "plots" / f"{name}.png").write_bytes(light)
            found[title] = Image(light, dark_png)
    return found


def changes(correct: Correct) -> list[Change]:
    """The changes from the first checkpoint to each other one, over the questions that both were asked."""
    first, *others = correct
    found = []
    for second in others:
        pairs = [(i, before, correct[second][i]) for i, before in correct[first].items() if i in correct[second]]
        gained = [i for i, before, after in pairs if after and not before]
        lost = [i for i, before, after in pairs if before and not after]
        found.append(Change(first, second, gained, lost))
    return found


def examples(files: Mapping[str, Location], correct: Correct, asked: Asked) -> list[Example]:
    """Some questions that all checkpoints were asked. Questions on which their greedy responses disagree come first.

    Those that the first checkpoint got wrong and those that it got right take turns.

    Args:
        files: a samples file by checkpoint.
        correct: of the same checkpoints.
        asked: the questions.
    """
    first, *others = correct.values()
    common = [row_id for row_id in first if all(row_id in other for other in others)]
    same = [row_id for row_id in common if all(other[row_id] is first[row_id] for other in others)]
    left = set(common) - set(same)
    wrong, right = ([row_id for row_id in common if row_id in left and first[row_id] is was] for was in (False, True))
    differ = [row_id for pair in zip_longest(wrong, right) for row_id in pair if row_id is not None][:CHANGED]
    chosen = [*differ, *same[: max(0, EXAMPLES - len(differ))]]
    rows = {row[ID]: row for row in asked.prompts.rows() if row[ID] in set(chosen)}
    sampled = {name: _questions(file, chosen) for name, file in files.items()}
    return [
        example(
            _title(rows[i], asked.column), rows[i][PROMPT], {name: questions[i] for name, questions in sampled.items()}
        )
        for i in chosen
    ]


def _title(row: Mapping[str, Any], column: str) -> str:
    """The question without the chat template around it, if the source has it as text or messages; else the prompt."""
    question = row.get(f"source_{column}", row.get(column))
    if isinstance(question, list) and question and isinstance(question[-1], dict):
        question = question[-1].get("content")
    return question if isinstance(question, str) else str(row[PROMPT])


def _greedy(file: Location) -> dict[str, bool]:
    """Whether the greedy response to each question is correct, by its id."""
    rows = file.rows([ID, "greedy", "verdict"])
    return {row[ID]: row["verdict"] == "correct" for row in rows if row["greedy"]}


def _questions(file: Location, chosen: Sequence[str]) -> dict[str, SampledQuestion]:
    wanted = set(chosen)
    return {question.id: question for question in read_questions(file) if question.id in wanted}
