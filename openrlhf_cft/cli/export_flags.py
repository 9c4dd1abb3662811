"""The flags of `masks export` and `masks card`, and their settings from them."""

from __future__ import annotations

import argparse
from typing import Any

from openrlhf_cft.data.records import MASK
from openrlhf_cft.masks.dataset_card import CardSettings
from openrlhf_cft.masks.export import ExportSettings
from openrlhf_cft.masks.formats import FORMATS


def card_flags(parser: argparse.ArgumentParser) -> None:
    """What only the one who publishes a data set knows."""
    parser.add_argument("--license", default="unknown", help="as the hub names it, for example apache-2.0")
    parser.add_argument("--language", nargs="+", default=[], metavar="CODE", help="ISO 639, for example en")


def card_settings(flags: dict[str, Any]) -> CardSettings:
    """What the flags say."""
    return CardSettings(flags["license"], tuple(flags["language"]))


def export_flags(parser: argparse.ArgumentParser) -> None:
    """All but the data set and its model."""
    parser.add_argument("--format", required=True, choices=FORMATS, help="of which trainer")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a local folder that is not there yet")
    parser.add_argument("--mask", default=MASK, metavar="COLUMN", help="the weights that are exported")
    parser.add_argument("--threshold", type=float, default=None, help="weights of at least this are 1, the others 0")
    parser.add_argument("--keep_empty", action="store_true", help="rows without a critical token too")
    about = "column of the question of a conversation, or of its messages; default: the annotated one"
    parser.add_argument("--data.input_key", default=None, metavar="COLUMN", help=about)
    card_flags(parser)


def export_settings(flags: dict[str, Any]) -> ExportSettings:
    """What the flags say."""
    return ExportSettings(
        format=flags["format"],
        mask=flags["mask"],
        threshold=flags["threshold"],
        keep_empty=flags["keep_empty"],
        model=flags["model.model_name_or_path"],
        input_key=flags["data.input_key"],
    )
