"""The stock OpenRLHF SFT script, plus `--critical_mask [COLUMN]` and `--cft.*` (`train/arguments.py`).

    deepspeed --module openrlhf_cft.cli.train_sft --critical_mask --data.dataset annotated --model.model_name_or_path M

Every other flag goes to `openrlhf.cli.train_sft` untouched. Without one of ours that script runs as it is.
"""

from __future__ import annotations

import argparse
import functools
import os
import runpy
import sys
import time
from typing import Any, NoReturn

from openrlhf_cft.errors import InputError
from openrlhf_cft.train.arguments import Options, add_flags, from_flags

STOCK_SCRIPT = "openrlhf.cli.train_sft"
SECONDS_FOR_THE_FIRST_RANK = 30  # to fail and print, before another one does


def split_flags(argv: list[str]) -> tuple[Options | None, list[str]]:
    """Our own flags, and all the others.

    Returns:
        Our options, None where none of our flags was given, and the arguments for the stock script, in their order.

    Raises:
        InputError: a flag was given twice, or makes no sense as it is.
    """
    parser = argparse.ArgumentParser("train_sft", add_help=False, allow_abbrev=False, exit_on_error=False)
    add_flags(parser)
    try:
        own, others = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise InputError(str(error)) from None
    return from_flags(own), others


def fail(message: str) -> NoReturn:
    """Exit with status 2, as all commands do for bad input, and one sentence, printed once per machine.

    All ranks come to the same conclusion, and a launcher ends them all when the first has exited. So the others wait;
    one that is still there after that has found something that the first has not, and says it. Where the first is only
    slow, another one says the same sentence first.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(SECONDS_FOR_THE_FIRST_RANK)
    print(f"train_sft: {message}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def run_stock() -> None:
    """Run the stock script as it is, but for a sentence where it has fewer rows than a batch takes.

    Raises:
        InputError: that sentence, before a model loads; the stock script raises after it has.
    """
    import openrlhf.utils

    from openrlhf_cft.train.preflight import check_rows

    get_strategy = openrlhf.utils.get_strategy  # the first thing that the script calls with its parsed flags

    @functools.wraps(get_strategy)
    def check_then_get_strategy(args: Any) -> Any:
        check_rows(args)
        return get_strategy(args)

    openrlhf.utils.get_strategy = check_then_get_strategy
    try:
        runpy.run_module(STOCK_SCRIPT, run_name="__main__", alter_sys=True)
    finally:
        openrlhf.utils.get_strategy = get_strategy


def main() -> None:
    """Take our flags off the command line and run the stock script, substituted or as it is."""
    try:
        options, sys.argv[1:] = split_flags(sys.argv[1:])
    except InputError as error:
        fail(str(error))
    if {"-h", "--help"} & set(sys.argv[1:]):
        own = argparse.ArgumentParser(add_help=False, usage=argparse.SUPPRESS)
        add_flags(own)
        print(f"{own.format_help()}\nEvery other flag is stock:\n", flush=True)
    from openrlhf_cft.train.preflight import check_openrlhf

    try:
        if options is None:
            check_openrlhf(any_version=True)
            run_stock()
            return
        check_openrlhf()
        from openrlhf_cft.train import stock  # after the check: it imports the names of the supported range

        stock.run(STOCK_SCRIPT, options)
    except InputError as error:
        fail(str(error))


if __name__ == "__main__":
    main()
