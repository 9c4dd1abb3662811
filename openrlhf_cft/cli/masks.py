"""`python -m openrlhf_cft.cli.masks VERB`: look at masks, compare, change and carry them, Parquet to Parquet.

A verb is a pair of functions: `_VERB_flags` adds its flags, `_VERB_run` makes one call of them and prints the result.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from openrlhf_cft.cli.flags import run_command
from openrlhf_cft.masks.derive import SELECTIONS, DeriveSettings, Wish, derive
from openrlhf_cft.masks.sample import SampleSettings, sample
from openrlhf_cft.masks.select import Budget
from openrlhf_cft.masks.table import open_data, output
from openrlhf_cft.records import MASK

Flags = dict[str, Any]


@dataclass(frozen=True)
class Verb:
    """One subcommand."""

    about: str
    flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Flags], None]


def _data_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help="an annotated data set: a directory, a Parquet file or a URI")


def _out_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="directory of the new data set, a path or a URI")


def _sample_flags(parser: argparse.ArgumentParser) -> None:
    _data_flag(parser)
    _out_flag(parser)
    parser.add_argument("--rows", type=int, required=True, help="how many")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--min_share", type=float, default=0.0, help="least share of critical tokens of a row")
    parser.add_argument("--max_share", type=float, default=1.0, help="largest share of critical tokens of a row")
    parser.add_argument("--mask", default=MASK, metavar="COLUMN", help="the weights that the shares are of")


def _sample_run(flags: Flags) -> None:
    if flags["rows"] < 1:
        raise ValueError(f"--rows: {flags['rows']} is not at least 1")
    if not 0 <= flags["min_share"] <= flags["max_share"] <= 1:
        raise ValueError(f"--min_share {flags['min_share']} to --max_share {flags['max_share']} is no part of 0 to 1")
    data = open_data(flags["data"])
    out = output(flags["out"], [data])
    settings = SampleSettings(flags["rows"], flags["seed"], flags["min_share"], flags["max_share"], flags["mask"])
    qualified = sample(data, settings, out)
    print(f"masks sample: {settings.rows} of {qualified} rows are in {out}")


def _derive_flags(parser: argparse.ArgumentParser) -> None:
    _data_flag(parser)
    _out_flag(parser)
    parser.add_argument("--column", nargs="+", required=True, metavar="NAME", help="new columns")
    hows = "strict-J, " + ", ".join(name for name in SELECTIONS if name != "strict")
    parser.add_argument("--how", nargs="+", required=True, help=f"how each is made: {hows}")
    parser.add_argument("--reference", default=MASK, metavar="COLUMN", help="mask whose count a row is taken")
    parser.add_argument("--share", type=float, default=None, help="share of a row's tokens instead of that count")
    parser.add_argument("--threshold", type=float, default=None, help="score that an alternative needs to be right")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--model.model_name_or_path", default=None, help="default: the one in the file metadata")


def _derive_run(flags: Flags) -> None:
    names, hows = flags["column"], flags["how"]
    if len(names) != len(hows):
        raise ValueError(f"--how: {len(hows)} given for {len(names)} columns")
    data = open_data(flags["data"])
    out = output(flags["out"], [data])
    budget = Budget(flags["reference"], flags["share"])
    settings = DeriveSettings(budget, flags["threshold"], flags["seed"], flags["model.model_name_or_path"])
    shares = derive(data, [Wish(*pair) for pair in zip(names, hows, strict=True)], settings, out)
    for name, how in zip(names, hows, strict=True):
        share = f"{shares[name]:.1%} of the response tokens" if name in shares else "no token"
        print(f"masks derive: column {name!r}, {how}: {share} above 0")
    print(f"masks derive: {out}")


VERBS = {
    "derive": Verb("new columns of weights from what is stored", _derive_flags, _derive_run),
    "sample": Verb("some rows at random", _sample_flags, _sample_run),
}


def parser() -> argparse.ArgumentParser:
    """All verbs with their flags."""
    flags = argparse.ArgumentParser(prog="masks", description=__doc__, allow_abbrev=False)
    verbs = flags.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        verb.flags(verbs.add_parser(name, help=verb.about, description=verb.about, allow_abbrev=False))
    return flags


def main(arguments: list[str] | None = None) -> int:
    """Run one verb.

    Raises:
        ValueError: names what is wrong with the input or a flag.
    """
    flags = vars(parser().parse_args(arguments))
    VERBS[flags["verb"]].run(flags)
    return 0


if __name__ == "__main__":
    run_command("masks", main, resumes=False)
