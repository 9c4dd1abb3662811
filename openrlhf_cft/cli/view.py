"""`python -m openrlhf_cft.cli.view annotated/ --out view.html`: look at critical tokens, on a page or in a shell.

Two data sets, or two columns of one (`--mask A B`), are shown side by side.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from openrlhf_cft.cli.flags import Parser, run_command
from openrlhf_cft.data.annotated import AnnotatedData, open_data
from openrlhf_cft.data.location import Location, file_place
from openrlhf_cft.data.records import MASK
from openrlhf_cft.data.tokenizer import tokenizer_of
from openrlhf_cft.display import marks_for_stdout, printable
from openrlhf_cft.errors import InputError
from openrlhf_cft.view.model import ShownData, read
from openrlhf_cft.view.page import write_page
from openrlhf_cft.view.pairing import Pairing, Side, read_pair
from openrlhf_cft.view.terminal import terminal_text

PAGE_ROWS, TERMINAL_ROWS = 1000, 20


@dataclass(frozen=True)
class ViewJob:
    """Everything that the command line says. One data set and mask, or two of each."""

    data: list[AnnotatedData]
    masks: list[str]
    models: list[str | None]  # whose tokenizers are used; None: the one that the metadata names
    max_samples: int
    out: Location | None  # of the page
    terminal: bool


def parser() -> argparse.ArgumentParser:
    """All flags of the command."""
    flags = Parser(
        prog="view", description=__doc__, example="python -m openrlhf_cft.cli.view annotated --out view.html"
    )
    flags.add_argument("data", nargs="+", help="one or two annotated data sets: directories, Parquet files or URIs")
    flags.add_argument("--out", default=None, metavar="FILE.html", help="write the page here")
    flags.add_argument("--terminal", action="store_true", help="print it: in colour on a terminal, else in brackets")
    flags.add_argument(
        "--mask",
        nargs="+",
        default=[MASK],
        metavar="COLUMN",
        help=f"column of weights, or one a side; default {MASK}",
    )
    flags.add_argument(
        "--model.model_name_or_path",
        nargs="+",
        default=[None],
        help="whose tokenizer is used, or one a data set; default: the one in the file metadata",
    )
    flags.add_argument(
        "--data.max_samples",
        type=int,
        default=None,
        help=f"show the first so many rows; default {PAGE_ROWS}, with --terminal {TERMINAL_ROWS}",
    )
    return flags


def job_of(arguments: list[str] | None = None) -> ViewJob:
    """The job that the flags describe.

    Raises:
        InputError: names a flag and its value.
    """
    flags = vars(parser().parse_args(arguments))
    names, masks, models = flags["data"], flags["mask"], flags["model.model_name_or_path"]
    sides = max(len(names), len(masks))
    for flag, values in (("data sets", names), ("--mask", masks), ("--model.model_name_or_path", models)):
        if len(values) > 2 or len(values) not in (1, sides):
            raise InputError(f"{flag}: {' '.join(map(str, values))!r} is too much; one or two can be side by side")
    out, terminal, rows = flags["out"], flags["terminal"], flags["data.max_samples"]
    if out is None and not terminal:
        raise InputError("--out FILE.html or --terminal: say where it is to be shown")
    if rows is not None and rows < 1:
        raise InputError(f"--data.max_samples: {rows} must be at least 1")
    default = PAGE_ROWS if out else TERMINAL_ROWS
    data = [open_data(name) for name in names]
    return ViewJob(
        data * (sides // len(data)),
        masks * (sides // len(masks)),
        models * (sides // len(models)),
        default if rows is None else rows,
        None if out is None else file_place(out, "--out"),
        terminal,
    )


def load(job: ViewJob) -> ShownData | Pairing:
    """Read what is to be shown.

    Raises:
        InputError: names what is wrong with a data set or its tokenizer.
    """
    loaded: dict[tuple[str, str | None], Any] = {}
    for data, model in zip(job.data, job.models, strict=True):
        if (data.name, model) not in loaded:
            loaded[data.name, model] = tokenizer_of(data, model)
    sides = [
        Side(data, loaded[data.name, model], mask)
        for data, model, mask in zip(job.data, job.models, job.masks, strict=True)
    ]
    if len(sides) == 2:
        return read_pair(sides[0], sides[1], job.max_samples)
    return read(sides[0].data, sides[0].tokenizer, sides[0].mask, job.max_samples)


def main(arguments: list[str] | None = None) -> int:
    """Write the page, print the text, or both."""
    job = job_of(arguments)
    shown = load(job)
    if job.terminal:
        print(printable(terminal_text(shown, marks_for_stdout())))
    if job.out is not None:
        size = write_page(job.out, shown)
        rows = len(shown.responses if isinstance(shown, ShownData) else shown.pairs)
        print(f"view: {rows} responses, {size / 1e6:.1f} MB, in {job.out}")
    return 0


if __name__ == "__main__":
    run_command("view", main, resumes=False)
