"""The stock OpenRLHF SFT script, plus `--critical_mask [COLUMN]`.

    deepspeed --module openrlhf_cft.cli.train_sft --critical_mask --data.dataset annotated --model.model_name_or_path M

Every other flag goes to `openrlhf.cli.train_sft` untouched. Without `--critical_mask` that script runs as it is.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
import time
from typing import NoReturn

from openrlhf_cft.records import MASK

STOCK_SCRIPT = "openrlhf.cli.train_sft"
FLAG = "--critical_mask"
SECONDS_FOR_THE_FIRST_RANK = 30  # to fail and print, before another one does


def split_flags(argv: list[str]) -> tuple[str | None, list[str]]:
    """Our own flag, and all the others.

    Returns:
        The mask column, None without the flag, and the arguments for the stock script, in their order.

    Raises:
        ValueError: the flag was given twice, or with an empty column name.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(FLAG, nargs="?", const=MASK, action="append", default=[])
    own, others = parser.parse_known_args(argv)
    if len(own.critical_mask) > 1:
        raise ValueError(
            f"{FLAG} was given {len(own.critical_mask)} times ({', '.join(own.critical_mask)}): give it once"
        )
    if own.critical_mask == [""]:
        raise ValueError(f"{FLAG}= names no column: write {FLAG} for {MASK!r}, or {FLAG} COLUMN")
    return (own.critical_mask[0] if own.critical_mask else None), others


def fail(message: str) -> NoReturn:
    """Exit with status 1 and one sentence, printed once per machine.

    All ranks come to the same conclusion, and a launcher ends them all when the first has exited. So the others wait;
    one that is still there after that has found something that the first has not, and says it.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(SECONDS_FOR_THE_FIRST_RANK)
    raise SystemExit(f"train_sft: {message}")


def main() -> None:
    """Take `--critical_mask` off the command line and run the stock script, substituted or as it is."""
    try:
        column, sys.argv[1:] = split_flags(sys.argv[1:])
    except ValueError as error:
        fail(str(error))
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"  {FLAG} [COLUMN]  train on the weights in COLUMN (default {MASK}); every other flag is stock:\n")
    if column is None:
        runpy.run_module(STOCK_SCRIPT, run_name="__main__", alter_sys=True)
        return
    from openrlhf_cft.train.checks import InputError
    from openrlhf_cft.train.preflight import check_openrlhf

    try:
        check_openrlhf()
        from openrlhf_cft.train import stock  # after the check: it imports the names of the supported range

        stock.run(STOCK_SCRIPT, column)
    except InputError as error:
        fail(str(error))


if __name__ == "__main__":
    main()
