"""The arms of the study: what each trains on. All else is equal."""

from __future__ import annotations

from dataclasses import dataclass

ANNOTATED, HELD_OUT, REJECTION = "annotated.parquet", "held-out.parquet", "rejection.parquet"


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    name: str
    title: str  # in the table
    flags: tuple[str, ...]  # of train_sft, beside those that all arms share
    how: str | None = None  # `masks derive` makes the arm's column of weights
    data: str = ANNOTATED
    many: bool = False  # as many seeds as the arms whose difference is the question


ARMS = (
    Arm("sft", "SFT", (), many=True),
    Arm("cft3", "CFT, Strict-3", ("--critical_mask", "critical_mask"), many=True),
    Arm("random", "random tokens, as many", ("--critical_mask", "random"), "random", many=True),
    Arm("cft2", "CFT, Strict-2", ("--critical_mask", "strict_2"), "strict-2"),
    Arm("entropy", "most uncertain tokens, as many", ("--critical_mask", "entropy"), "entropy"),
    Arm("numbers", "tokens with a digit", ("--critical_mask", "numbers"), "numbers"),
    Arm("dft", "DFT", ("--cft.loss", "dft")),
    Arm("rejection", "SFT, rejection sampling for the cost of the masks", (), data=REJECTION),
)


def column(arm: Arm) -> str | None:
    """The column of the arm's weights; None where it trains on all tokens."""
    return arm.flags[arm.flags.index("--critical_mask") + 1] if "--critical_mask" in arm.flags else None
