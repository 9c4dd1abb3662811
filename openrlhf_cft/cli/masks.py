"""`python -m openrlhf_cft.cli.masks VERB`: look at masks, compare, change and carry them, Parquet to Parquet.

A verb is a pair of functions: `_VERB_flags` adds its flags, `_VERB_run` makes one call of them and prints the result.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from openrlhf_cft.cli.export_flags import card_flags, card_settings, export_flags, export_settings
from openrlhf_cft.cli.flags import DTYPES, Parser, run_command
from openrlhf_cft.cli.report_flag import report, report_flag, require_json
from openrlhf_cft.cli.transfer_flags import transfer_flags, transfer_settings
from openrlhf_cft.data.annotated import open_data, output
from openrlhf_cft.data.location import file_place
from openrlhf_cft.data.provenance import versions
from openrlhf_cft.data.records import MASK
from openrlhf_cft.data.tokenizer import tokenizer_if_any
from openrlhf_cft.engine.token_scores import BATCH_TOKENS
from openrlhf_cft.errors import InputError
from openrlhf_cft.masks.compare import compare, comparison_text
from openrlhf_cft.masks.coverage import transfer_text
from openrlhf_cft.masks.dataset_card import card
from openrlhf_cft.masks.derive import SELECTIONS, DeriveSettings, Wish, derive
from openrlhf_cft.masks.export import export, export_text, local_output
from openrlhf_cft.masks.merge import ON_DUPLICATE, merge
from openrlhf_cft.masks.sample import SampleSettings, sample
from openrlhf_cft.masks.select import Budget
from openrlhf_cft.masks.stats import stats, stats_text
from openrlhf_cft.masks.transfer import transfer

COMMAND = "python -m openrlhf_cft.cli.masks"
Flags = dict[str, Any]


@dataclass(frozen=True)
class Verb:
    """One subcommand."""

    about: str
    example: str  # its arguments
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
    parser.add_argument("--seed", type=int, default=42, help="of the choice")
    parser.add_argument("--min_share", type=float, default=0.0, help="least share of critical tokens of a row")
    parser.add_argument("--max_share", type=float, default=1.0, help="largest share of critical tokens of a row")
    parser.add_argument("--mask", default=MASK, metavar="COLUMN", help="the weights that the shares are of")


def _sample_run(flags: Flags) -> None:
    if flags["rows"] < 1:
        raise InputError(f"--rows: {flags['rows']} must be at least 1")
    if not 0 <= flags["min_share"] <= flags["max_share"] <= 1:
        raise InputError(
            f"--min_share {flags['min_share']} --max_share {flags['max_share']}: need 0 <= min <= max <= 1"
        )
    data = open_data(flags["data"])
    out = output(flags["out"], [data])
    settings = SampleSettings(flags["rows"], flags["seed"], flags["min_share"], flags["max_share"], flags["mask"])
    qualified = sample(data, settings, out)
    print(f"masks sample: {settings.rows} of {qualified} rows are in {out}")


def _model_flag(parser: argparse.ArgumentParser) -> None:
    about = "whose tokenizer or probabilities are used; default: the model that the file metadata names"
    parser.add_argument("--model.model_name_or_path", default=None, help=about)


def _score_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dtype", default="auto", choices=DTYPES, help="of models that score; auto: as the checkpoint"
    )
    parser.add_argument("--batch_tokens", type=int, default=BATCH_TOKENS, help="padded tokens of one of their batches")


def _stats_flags(parser: argparse.ArgumentParser) -> None:
    _data_flag(parser)
    report_flag(parser)
    parser.add_argument("--mask", default=MASK, metavar="COLUMN", help="the weights that are looked at")
    _model_flag(parser)


def _stats_run(flags: Flags) -> None:
    require_json(flags["out"])
    data = open_data(flags["data"])
    tokenizer, why = tokenizer_if_any(data, flags["model.model_name_or_path"])
    figures = stats(data, flags["mask"], tokenizer)
    print(stats_text(figures))
    if why:
        print(f"kinds of tokens     not counted: {why}")
    report(flags["out"], {"data": data.name, **figures, "versions": versions()})


def _compare_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", help="an annotated data set")
    parser.add_argument("b", nargs="?", default=None, help="another; default: the same, for two of its columns")
    parser.add_argument("--mask_a", default=MASK, metavar="COLUMN", help="of the first, A")
    parser.add_argument("--mask_b", default=MASK, metavar="COLUMN", help="of the second, B")
    report_flag(parser)
    _model_flag(parser)


def _compare_run(flags: Flags) -> None:
    require_json(flags["out"])
    if flags["b"] is None and flags["mask_a"] == flags["mask_b"]:
        raise InputError(f"--mask_b: {flags['mask_b']!r} is --mask_a too, and there is one data set")
    left = open_data(flags["a"])
    right = left if flags["b"] is None else open_data(flags["b"])
    tokenizer, why = tokenizer_if_any(left, flags["model.model_name_or_path"])
    comparison = compare(left, right, flags["mask_a"], flags["mask_b"], tokenizer)
    print(comparison_text(comparison))
    if why:
        print(f"kinds of tokens     not counted: {why}")
    sides = {"a": [left.name, flags["mask_a"]], "b": [right.name, flags["mask_b"]]}
    report(flags["out"], {**sides, **comparison.figures(), "versions": versions()})


def _merge_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="+", help="annotated data sets, with one tokenizer")
    _out_flag(parser)
    about = "; ".join(f"{name}: {text}" for name, text in ON_DUPLICATE.items())
    parser.add_argument("--on_duplicate", choices=list(ON_DUPLICATE), default="error", help=about)


def _merge_run(flags: Flags) -> None:
    inputs = [open_data(path) for path in flags["data"]]
    out = output(flags["out"], inputs)
    counts = merge(inputs, flags["on_duplicate"], out)
    repeated = f"{counts['dropped']} dropped and {counts['renamed']} renamed for an id that occurs again"
    print(f"masks merge: {counts['rows']} rows are in {out}; {repeated}")


def _derive_flags(parser: argparse.ArgumentParser) -> None:
    _data_flag(parser)
    _out_flag(parser)
    parser.add_argument("--column", nargs="+", required=True, metavar="NAME", help="new columns")
    hows = "strict-J, " + ", ".join(name for name in SELECTIONS if name != "strict")
    parser.add_argument("--how", nargs="+", required=True, help=f"how each is made: {hows}")
    parser.add_argument(
        "--reference", default=MASK, metavar="COLUMN", help="mask that sets how many tokens each row selects"
    )
    parser.add_argument("--share", type=float, default=None, help="select this share of a row's tokens instead")
    parser.add_argument(
        "--threshold",
        type=float,
        default=None,
        help="lowest score of a correct alternative; of strict-J: lowest success rate",
    )
    parser.add_argument("--seed", type=int, default=42, help="of random tokens")
    _model_flag(parser)
    parser.add_argument("--reference.model_name_or_path", default=None, help="the other model of excess_loss")
    _score_flags(parser)


def _derive_run(flags: Flags) -> None:
    names, hows = flags["column"], flags["how"]
    if len(names) != len(hows):
        raise InputError(f"--how: {len(hows)} given for {len(names)} columns")
    data = open_data(flags["data"])
    out = output(flags["out"], [data])
    budget = Budget(flags["reference"], flags["share"])
    settings = DeriveSettings(
        budget,
        flags["threshold"],
        flags["seed"],
        flags["model.model_name_or_path"],
        flags["reference.model_name_or_path"],
        flags["dtype"],
        flags["batch_tokens"],
    )
    shares = derive(data, [Wish(*pair) for pair in zip(names, hows, strict=True)], settings, out)
    for name, how in zip(names, hows, strict=True):
        share = f"{shares[name]:.1%} of the response tokens" if name in shares else "no token"
        print(f"masks derive: column {name!r}, {how}: {share} above 0")
    print(f"masks derive: {out}")


def _transfer_flags(parser: argparse.ArgumentParser) -> None:
    _data_flag(parser)
    _out_flag(parser)
    transfer_flags(parser)
    _model_flag(parser)


def _transfer_run(flags: Flags) -> None:
    require_json(flags["report"], "--report")
    data = open_data(flags["data"])
    out = output(flags["out"], [data])
    figures = transfer(data, transfer_settings(flags), out)
    print(f"{transfer_text(figures)}\nmasks transfer: {out}")
    report(flags["report"], {"data": data.name, "to": flags["to"], **figures, "versions": versions()})


def _export_flags(parser: argparse.ArgumentParser) -> None:
    _data_flag(parser)
    export_flags(parser)
    _model_flag(parser)


def _export_run(flags: Flags) -> None:
    data, settings = open_data(flags["data"]), export_settings(flags)
    out = local_output(flags["out"], data)
    print(export_text(export(data, settings, card_settings(flags), out), settings, out))


def _card_flags(parser: argparse.ArgumentParser) -> None:
    _data_flag(parser)
    card_flags(parser)
    parser.add_argument("--mask", default=MASK, metavar="COLUMN", help="the weights that are described")
    parser.add_argument("--out", default=None, metavar="README.md", help="write it here; default: print it")


def _card_run(flags: Flags) -> None:
    out = None if flags["out"] is None else file_place(flags["out"], "--out")
    if out is not None and out.exists():
        raise InputError(f"--out: {str(out)!r} is there already: give another, or delete it")
    text = card(open_data(flags["data"]), flags["mask"], card_settings(flags))
    if out is None:
        print(text, end="")
    else:
        out.write_text(text)
        print(f"masks card: {out}")


VERBS = {
    "stats": Verb("which tokens are critical: by kind, place and row", "annotated", _stats_flags, _stats_run),
    "compare": Verb(
        "agreement of two masks of the same responses",
        "annotated other --out agreement.json",
        _compare_flags,
        _compare_run,
    ),
    "merge": Verb("several annotated data sets as one", "first second --out both", _merge_flags, _merge_run),
    "derive": Verb(
        "new columns of weights from what is stored",
        "annotated --out derived --column strict_2 --how strict-2",
        _derive_flags,
        _derive_run,
    ),
    "transfer": Verb(
        "masks of one model as those of another",
        "annotated --to runs/other --out carried",
        _transfer_flags,
        _transfer_run,
    ),
    "export": Verb(
        "the data set in the format of another trainer",
        "annotated --format trl --out for_trl",
        _export_flags,
        _export_run,
    ),
    "card": Verb(
        "a data-set card, ready for a hub", "annotated --license apache-2.0 --language en", _card_flags, _card_run
    ),
    "sample": Verb("some rows at random", "annotated --rows 100 --out some", _sample_flags, _sample_run),
}


def parser() -> argparse.ArgumentParser:
    """All verbs with their flags."""
    flags = Parser(prog="masks", description=__doc__, example=f"{COMMAND} stats annotated")
    verbs = flags.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        example = f"{COMMAND} {name} {verb.example}"
        verb.flags(verbs.add_parser(name, help=verb.about, description=verb.about, example=example))
    return flags


def main(arguments: list[str] | None = None) -> int:
    """Run one verb.

    Raises:
        InputError: names what is wrong with the input or a flag.
    """
    flags = vars(parser().parse_args(arguments))
    VERBS[flags["verb"]].run(flags)
    return 0


if __name__ == "__main__":
    run_command("masks", main, resumes=False)
