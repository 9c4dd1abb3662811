"""The file of figures that a verb of `masks` writes beside what it prints."""

from __future__ import annotations

import argparse
from typing import Any

from openrlhf_cft.data.location import file_place, location
from openrlhf_cft.data.provenance import write_json
from openrlhf_cft.errors import InputError


def report_flag(parser: argparse.ArgumentParser) -> None:
    """`--out FILE.json`."""
    parser.add_argument("--out", default=None, metavar="FILE.json", help="write the figures there too")


def report(path: str | None, figures: dict[str, Any]) -> None:
    """Write figures, where a file is named."""
    if path is not None:
        write_json(location(path), figures)


def require_json(path: str | None, flag: str = "--out") -> None:
    """Refuse a file that cannot be written, or is named as if it were no JSON.

    Raises:
        InputError: names the flag and the file.
    """
    if path is None:
        return
    if not path.endswith(".json"):
        raise InputError(f"{flag}: {path!r} does not end with .json")
    file_place(path, flag)
