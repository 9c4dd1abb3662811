"""The flags of CFT training, which are added to OpenRLHF's own. Standard library only."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from openrlhf_cft.data.records import MASK
from openrlhf_cft.errors import InputError

MASK_FLAG = "--critical_mask"
MISSING = ("error", "train", "drop")
LOSSES = ("nll", "dft")


@dataclass(frozen=True)
class Options:
    """What to train on, and with which loss.

    Attributes:
        column: the column of the weights; None trains all response tokens, as the stock script does.
        missing: how to treat a row without weights: "error" refuses it, "train" trains all its response tokens,
            "drop" leaves it out.
        loss: "nll", or "dft": the negative log-likelihood times the token's probability, which is not differentiated
            (Dynamic Fine-Tuning, arXiv 2508.05629).
        dense_logits: compute logits at every position, as the stock script does; otherwise at loss positions only.
    """

    column: str | None = MASK
    missing: str = "error"
    loss: str = "nll"
    dense_logits: bool = False


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add our flags to a parser, which may be the stock script's own."""
    group = parser.add_argument_group("Critical Token Fine-tuning")
    group.add_argument(
        MASK_FLAG,
        nargs="?",
        const=MASK,
        action=_Once,
        metavar="COLUMN",
        help=f"train on annotated rows, each response token weighted by COLUMN (default {MASK})",
    )
    group.add_argument(
        "--cft.missing",
        choices=MISSING,
        default="error",
        action=_Once,
        help="a row without weights is an error (default), trained on all its response tokens, or dropped",
    )
    group.add_argument(
        "--cft.loss",
        choices=LOSSES,
        default="nll",
        action=_Once,
        help="nll (default), or dft: nll times the detached probability (also without --critical_mask, on all tokens)",
    )
    group.add_argument(
        "--cft.dense_logits", action="store_true", help="compute logits everywhere, as the stock script does"
    )


class _Once(argparse.Action):
    """A flag that may be given only once. Otherwise the last value would win silently."""

    given: object = None

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, flag: str | None = None
    ) -> None:
        if self.given is not None:
            raise argparse.ArgumentError(None, f"{flag} was given twice ({self.given}, {values}): give it once")
        self.given = values
        setattr(namespace, self.dest, values)


def from_flags(flags: argparse.Namespace) -> Options | None:
    """The options from parsed flags; None if the flags ask for nothing but the stock script.

    Raises:
        InputError: a flag has no meaning without another one that is missing, or the column name is empty.
    """
    values = vars(flags)
    column, missing, loss = values["critical_mask"], values["cft.missing"], values["cft.loss"]
    dense = values["cft.dense_logits"]
    if column == "":
        raise InputError(f"{MASK_FLAG}= names no column: write {MASK_FLAG} for {MASK!r}, or {MASK_FLAG} COLUMN")
    if column is None:
        for flag, given in (("--cft.missing", missing != "error"), ("--cft.dense_logits", dense)):
            if given:
                raise InputError(f"{flag} has no meaning without {MASK_FLAG}")
        if loss == "nll":
            return None
    return Options(column, missing, loss, dense)
