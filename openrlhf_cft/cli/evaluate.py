"""`python -m openrlhf_cft.cli.evaluate`: greedy accuracy, Pass@k and entropy of one or more checkpoints."""

from __future__ import annotations

import argparse

from openrlhf_cft.cli.flags import (
    data_flags,
    engine_flags,
    engine_settings,
    output_place,
    pool_settings,
    run_command,
    source_settings,
    verifier_flags,
    verifier_settings,
)
from openrlhf_cft.evaluate.job import EvaluateJob, evaluate, table
from openrlhf_cft.evaluate.worker import EvaluateSettings


def parser() -> argparse.ArgumentParser:
    """All flags of the command."""
    flags = argparse.ArgumentParser(prog="evaluate", description=__doc__, allow_abbrev=False)
    flags.add_argument(
        "--compare", nargs="+", required=True, metavar="NAME=CHECKPOINT", help="base=... sft=... cft=..."
    )
    data_flags(flags)
    engine_flags(flags)
    flags.add_argument("--eval.n_samples", type=int, default=8, help="samples a question, at temperature 1")
    flags.add_argument("--eval.max_new_tokens", type=int, default=512)
    verifier_flags(flags, "eval")
    return flags


def checkpoints(pairs: list[str]) -> dict[str, str]:
    """NAME=CHECKPOINT pairs, in order.

    Raises:
        ValueError: a pair without `=`, a name that is no plain directory name, or one that occurs twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator or not path or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ValueError(f"--compare: {pair!r} is not NAME=CHECKPOINT")
        if name in found:
            raise ValueError(f"--compare: {name!r} is given twice")
        found[name] = path
    return found


def job_of(arguments: list[str] | None = None) -> EvaluateJob:
    """The job that the flags describe.

    Raises:
        ValueError: names a flag and its value.
    """
    flags = vars(parser().parse_args(arguments))
    samples, budget = flags["eval.n_samples"], flags["eval.max_new_tokens"]
    if samples < 0:
        raise ValueError(f"--eval.n_samples: {samples} is negative")
    if budget < 1:
        raise ValueError(f"--eval.max_new_tokens: {budget} is not at least 1")
    return EvaluateJob(
        {name: engine_settings(flags, path) for name, path in checkpoints(flags["compare"]).items()},
        source_settings(flags),
        EvaluateSettings(samples, budget, flags["train.seed"]),
        verifier_settings(flags, "eval"),
        pool_settings(flags),
        output_place(flags),
    )


def main() -> int:
    """Evaluate, print the table; 1 when rows are left for the next run."""
    job = job_of()
    found = evaluate(job)
    print(table(found))
    return 1 if any(figures["failed"] for figures in found.values()) else 0


if __name__ == "__main__":
    run_command("evaluate", main)
