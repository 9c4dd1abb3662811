"""How far two masks of the same tokens agree: counts of both, one and neither, and figures made from them. Pure.

A token counts as critical if its weight is above 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Agreement:
    """Counts of tokens by what two masks, A and B, say of them. A figure without a value is None, not zero."""

    both: int = 0  # critical in A and in B
    only_a: int = 0
    only_b: int = 0
    neither: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.both + other.both,
            self.only_a + other.only_a,
            self.only_b + other.only_b,
            self.neither + other.neither,
        )

    @property
    def tokens(self) -> int:
        """All tokens that were compared."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def share(self) -> float | None:
        """The share of tokens on which both masks agree."""
        return _ratio(self.both + self.neither, self.tokens)

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa, (p_o - p_e) / (1 - p_e): the agreement beyond that of random masks with the same shares.

        None if chance alone makes them agree: there is no token, or both call all tokens critical, or none.

        Source: Cohen, "A coefficient of agreement for nominal scales", 1960. In whole numbers until the division.
        """
        a, b, n = self.both + self.only_a, self.both + self.only_b, self.tokens
        by_chance = a * b + (n - a) * (n - b)  # p_e n²
        return _ratio((self.both + self.neither) * n - by_chance, n * n - by_chance)

    @property
    def precision(self) -> float | None:
        """The share of B's critical tokens that are critical in A."""
        return _ratio(self.both, self.both + self.only_b)

    @property
    def recall(self) -> float | None:
        """The share of A's critical tokens that are critical in B."""
        return _ratio(self.both, self.both + self.only_a)

    def figures(self) -> dict[str, Any]:
        """All counts and figures, as JSON; a figure without a value is absent."""
        names = ("tokens", "both", "only_a", "only_b", "neither", "share", "kappa", "precision", "recall")
        figures = {"agreement" if name == "share" else name: getattr(self, name) for name in names}
        return {name: value for name, value in figures.items() if value is not None}


def agreement(left: Sequence[float], right: Sequence[float]) -> Agreement:
    """Compare two masks of the same tokens.

    Args:
        left: (T,) weights, A.
        right: (T,) weights, B.
    """
    pairs = [(a > 0, b > 0) for a, b in zip(left, right, strict=True)]
    return Agreement(*(pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))))


def cohen_kappa(left: Sequence[float], right: Sequence[float]) -> float | None:
    """`Agreement.kappa` of two masks of the same tokens, (T,) weights each."""
    return agreement(left, right).kappa


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
