"""How many tokens of a row to select, and which: those with the highest scores. Strict-k does not use this.

count = Budget(reference="critical_mask").count(row)     # as many as are critical
weights = highest(scores_T, count)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openrlhf_cft.data.annotated import Row
from openrlhf_cft.data.records import ID, MASK, RESPONSE_IDS, check_weights
from openrlhf_cft.errors import InputError


@dataclass(frozen=True)
class Budget:
    """How many tokens of each row are selected: as many as another mask has, or a share of them."""

    reference: str | None = MASK  # column of the mask whose count of weights above 0 is taken
    share: float | None = None  # of the row's response tokens, rounded to the nearest number; used before `reference`

    def __post_init__(self) -> None:
        if self.share is not None and not 0 <= self.share <= 1:
            raise InputError(f"--share: {self.share} must be between 0 and 1")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that `count` reads."""
        return (self.reference,) if self.share is None and self.reference else ()

    def count(self, row: Row) -> int:
        """The number of tokens to select.

        Raises:
            InputError: the row has no weights in the reference column, or they do not fit its tokens.
        """
        if self.share is not None:
            return int(self.share * len(row[RESPONSE_IDS]) + 0.5)
        assert self.reference is not None, "a budget without a share has a reference"
        check_weights(row[ID], row[self.reference], row[RESPONSE_IDS], self.reference)
        return sum(weight > 0 for weight in row[self.reference])


def highest(scores: Sequence[float], count: int) -> list[float]:
    """The mask of the tokens with the highest scores. Of equal scores the earlier token comes first.

    Args:
        scores: (T,) of any scale.
        count: how many tokens, at most T.

    Returns:
        (T,) weights, 1 for `count` of them.
    """
    chosen = set(sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:count])
    return [float(index in chosen) for index in range(len(scores))]
