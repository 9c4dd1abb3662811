"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The state of one part of the machine or the environment."""

    name: str
    value: str
    problem: str = ""  # what is wrong with it; empty if nothing is
    remedy: str = ""  # the command that fixes it, or what else to do
    fatal: bool = True  # whether the main job cannot run with this problem
