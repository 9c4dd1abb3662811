"""Whether an alternative's greedy verdict agrees with its sampled success rate."""

from __future__ import annotations

from collections import Counter
from typing import Any

from openrlhf_cft.data.annotated import Row
from openrlhf_cft.data.records import ALTERNATIVES, Verdict, alternative_from_dict

HALF = 0.5  # a success rate of at least this is a success


class SampledVerdicts:
    """Counts alternatives that were tried greedily and by sampling."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[bool, bool]] = Counter()  # by greedy success and sampled success

    def add(self, row: Row) -> None:
        """Count the alternatives of one row."""
        for position in row[ALTERNATIVES] or []:
            for alternative in map(alternative_from_dict, position or []):
                if alternative.sampled is not None:
                    greedy = alternative.verdict is Verdict.CORRECT
                    self._counts[greedy, alternative.sampled.rate >= HALF] += 1

    def figures(self) -> dict[str, Any] | None:
        """As JSON; None if there was no such alternative."""
        total = self._counts.total()
        if not total:
            return None
        return {
            "alternatives": total,
            "agreement": (self._counts[True, True] + self._counts[False, False]) / total,
            "only_greedy_correct": self._counts[True, False],
            "only_sampled_correct": self._counts[False, True],
        }


def verdicts_text(figures: dict[str, Any]) -> str:
    """A line for a terminal."""
    greedy, sampled = figures["only_greedy_correct"], figures["only_sampled_correct"]
    return (
        f"greedy and sampled  agree at {figures['agreement']:.1%} of {figures['alternatives']} alternatives of A "
        f"(correct: at least {HALF:.0%} of the samples); {greedy} correct only greedily, {sampled} only by sampling"
    )
