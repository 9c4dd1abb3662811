"""The arms of the second study. Those of the second list train on the few responses that have success rates."""

from __future__ import annotations

from arms import REJECTION, Arm

RATED = "rated.parquet"  # responses with success rates, and the columns of their arms
STRICT_3, RANDOM = ("--critical_mask", "critical_mask"), ("--critical_mask", "random")
# Few rows: smaller batches, and every row more than once, or there were four steps.
FEW = ("--train.batch_size", "8", "--train.max_epochs", "3")

ALL_ROWS = (
    Arm("sft", "SFT", (), many=True),
    Arm("cft3", "CFT, Strict-3", STRICT_3, many=True),
    Arm("random", "random tokens, as many", RANDOM, "random", many=True),
    Arm("cft2", "CFT, Strict-2", ("--critical_mask", "strict_2"), "strict-2"),
    Arm("dft", "DFT", ("--cft.loss", "dft")),
    Arm("rejection", "SFT, rejection sampling for the cost of the masks", (), data=REJECTION),
)
SAMPLED_ROWS = (
    Arm("few-sft", "few rows: SFT", FEW, data=RATED),
    Arm("few-cft3", "few rows: CFT, Strict-3", (*STRICT_3, *FEW), data=RATED),
    Arm("few-drop", "few rows: success-drop weights", ("--critical_mask", "drop", *FEW), "success_drop", data=RATED),
    Arm("few-random", "few rows: random tokens, as many as Strict-3", (*RANDOM, *FEW), "random", data=RATED),
)
