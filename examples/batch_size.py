"""A batch that the rows allow, for `examples/quickstart.sh`: both arms take the same one.

    python examples/batch_size.py --questions train.jsonl              # before annotation: is BATCH possible at all?
    eval "$(python examples/batch_size.py --annotated annotated)"      # sets BATCH and MICRO

The variables BATCH, MICRO and GPUS are read. BATCH is 16 where it is not set, or less where there are fewer rows. A
BATCH that is set is never changed: one that the rows do not fill ends with a sentence. MICRO is lowered to divide it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from openrlhf_cft.data import records

BATCH, MICRO = 16, 8


def fit(rows: int, batch: int, micro: int, gpus: int) -> tuple[int, int]:
    """The largest batch of at most `batch` rows, and the micro-batch that it is made of.

    Args:
        rows: that one epoch has; at least `gpus`.
        batch: the largest batch.
        micro: the largest micro-batch on one GPU.
        gpus: processes that share a batch.

    Returns:
        Batch and micro-batch; the batch is a multiple of `gpus` micro-batches.
    """
    batch = min(max(batch, gpus), rows)
    micro = max(1, min(micro, batch // gpus))
    return batch // (micro * gpus) * micro * gpus, micro


def trainable(annotated: Path) -> int:
    """Rows with a critical token: those that CFT trains on."""
    return sum(any(row[records.MASK]) for row in records.read_rows(annotated, [records.MASK]))


def variable(name: str) -> int | None:
    """A number from the environment; None where it is not set, or empty."""
    text = os.environ.get(name) or None
    if text is not None and not (text.isdecimal() and int(text) > 0):
        sys.exit(f"quickstart: {name}={text} is not a whole number above 0")
    return int(text) if text is not None else None


def main() -> None:
    """Check or choose, and print shell assignments."""
    parser = argparse.ArgumentParser(description="Choose a batch that the rows allow.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--questions", type=Path, help="JSON lines to annotate: refuse a BATCH larger than their number"
    )
    which.add_argument("--annotated", type=Path, help="annotated data set: print BATCH and MICRO")
    args = parser.parse_args()
    given, gpus = variable("BATCH"), variable("GPUS") or 1
    if args.questions is not None:
        if given is None or args.questions.suffix != ".jsonl":
            return
        rows, what = sum(bool(line.strip()) for line in args.questions.open()), f"questions in {args.questions}"
    else:
        rows, what = trainable(args.annotated), f"rows of {args.annotated} with a critical token"
    if rows < max(gpus, 1):
        sys.exit(f"quickstart: {rows} {what}, and one batch needs {gpus}: give more questions (TRAIN)")
    if given is not None and given > rows:
        sys.exit(f"quickstart: BATCH={given} is more than the {rows} {what}: set BATCH={rows} or less")
    if args.questions is not None:
        return
    micro = variable("MICRO") or MICRO
    if given is None:
        batch, micro = fit(rows, BATCH, micro, gpus)
    else:
        batch = given
        micro = max(size for size in range(1, micro + 1) if batch % (size * gpus) == 0 or size == 1)
    print(f"export BATCH={batch} MICRO={micro}")
    if given is None and batch < BATCH:
        print(f"quickstart: batches of {batch} rows and not of {BATCH}: there are {rows} {what}", file=sys.stderr)


if __name__ == "__main__":
    main()
