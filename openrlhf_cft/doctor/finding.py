"""One line of what the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What one part of the machine or the environment is like."""

    name: str
    value: str
    problem: str = ""  # what is wrong with it; empty where nothing is
    remedy: str = ""  # the command that mends it, or what else to do
    fatal: bool = True  # a problem that the main job cannot run with
