"""The flags of `masks transfer`, and its settings from them."""

from __future__ import annotations

import argparse
from typing import Any

from openrlhf_cft.cli.flags import DTYPES, token_flags
from openrlhf_cft.data.records import MASK
from openrlhf_cft.data.source import SourceSettings
from openrlhf_cft.engine.token_scores import BATCH_TOKENS
from openrlhf_cft.errors import InputError
from openrlhf_cft.masks.select import Budget
from openrlhf_cft.masks.transfer import METHODS, Picking, TransferSettings


def transfer_flags(parser: argparse.ArgumentParser) -> None:
    """All but the data set, its model and `--out`."""
    parser.add_argument("--to", required=True, metavar="MODEL", help="the model that is to be trained")
    how = "characters: copy weights to tokens that overlap; score: pick the target's least probable tokens"
    parser.add_argument("--method", choices=METHODS, default="characters", help=how)
    parser.add_argument("--threshold", type=float, default=None, help="score: tokens less probable than this")
    parser.add_argument("--count", default=None, help="score: tokens per row; default same: as many as by characters")
    parser.add_argument("--share", type=float, default=None, help="score: this share of a row's tokens")
    parser.add_argument("--data.input_key", default=None, help="column of the question, to render prompts anew")
    parser.add_argument("--data.apply_chat_template", action="store_true", help="render with the target's template")
    parser.add_argument(
        "--data.input_template", default=None, help="prompt text; {} is the question: $'User: {}\\nAssistant: '"
    )
    token_flags(parser)
    parser.add_argument("--report", default=None, metavar="FILE.json", help="write the figures there too")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="score: auto is the checkpoint's")
    parser.add_argument("--batch_tokens", type=int, default=BATCH_TOKENS, help="score: padded tokens of a batch")


def transfer_settings(flags: dict[str, Any]) -> TransferSettings:
    """What the flags say.

    Raises:
        InputError: names a flag and its value.
    """
    return TransferSettings(
        to=flags["to"],
        method=flags["method"],
        model=flags["model.model_name_or_path"],
        rendering=_rendering(flags),
        picking=_picking(flags),
        dtype=flags["dtype"],
        batch_tokens=flags["batch_tokens"],
        add_bos=flags["data.add_bos"],
        special_tokens=flags["data.special_tokens"],
    )


def _rendering(flags: dict[str, Any]) -> SourceSettings | None:
    key, template = flags["data.input_key"], flags["data.input_template"]
    if key is None:
        if flags["data.apply_chat_template"] or template is not None:
            raise InputError("--data.input_key: name the question's column, which a template is to render")
        return None
    apply = flags["data.apply_chat_template"]
    return SourceSettings("", input_key=key, apply_chat_template=apply, input_template=template)


def _picking(flags: dict[str, Any]) -> Picking:
    given = [f"--{name}" for name in ("threshold", "count", "share") if flags[name] is not None]
    if given and flags["method"] != "score":
        raise InputError(f"{given[0]}: add --method score, which picks tokens")
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)}: one of them picks the tokens")
    threshold, count = flags["threshold"], flags["count"]
    if threshold is not None and not 0 < threshold <= 1:
        raise InputError(f"--threshold: {threshold} is no probability above 0")
    if count not in (None, "same") and not (count.isdigit() and int(count)):
        raise InputError(f"--count: {count!r} is neither same nor a number of at least 1")
    return Picking(threshold, None if count in (None, "same") else int(count), Budget(MASK, flags["share"]))
