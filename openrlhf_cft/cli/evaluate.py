"""`python -m openrlhf_cft.cli.evaluate`: accuracy, Pass@k, majority@k, entropy of checkpoints on data sets."""

from __future__ import annotations

import argparse
import math
import os
import re
from typing import Any

from openrlhf_cft.cli.flags import (
    Parser,
    data_flags,
    engine_flags,
    engine_settings,
    output_place,
    pool_settings,
    run_command,
    source_settings,
    stop_flag,
    verifier_flags,
    verifier_settings,
)
from openrlhf_cft.errors import InputError
from openrlhf_cft.evaluation.benchmarks import BENCHMARKS
from openrlhf_cft.evaluation.job import EvaluateJob, evaluate
from openrlhf_cft.evaluation.majority import MAX_SAMPLES
from openrlhf_cft.evaluation.row_worker import EvaluateSettings
from openrlhf_cft.evaluation.text_report import tables

EXAMPLE = (
    "python -m openrlhf_cft.cli.evaluate --compare base=runs/model cft=runs/cft --data.dataset test.jsonl "
    "--data.input_key question --data.label_key answer --data.apply_chat_template --ckpt.output_dir evaluation"
)


def parser() -> argparse.ArgumentParser:
    """All flags of the command."""
    known = f"{__doc__}\n\nbenchmarks, as --data.dataset: {', '.join(BENCHMARKS)}"
    usage = "python -m openrlhf_cft.cli.evaluate FLAG ..."
    flags = Parser(prog="evaluate", usage=usage, description=known, example=EXAMPLE)
    flags.add_argument(
        "--compare",
        nargs="+",
        required=True,
        metavar="NAME=CHECKPOINT",
        help="checkpoints, the first is the baseline: base=... sft=... cft=...",
    )
    data_flags(flags)
    engine_flags(flags)
    flags.add_argument("--eval.n_samples", type=int, default=8, help="samples a question, beside a greedy response")
    flags.add_argument("--eval.max_new_tokens", type=int, default=512, help="token budget of a response")
    flags.add_argument("--eval.temperature", type=float, default=1.0, help="of the samples")
    flags.add_argument("--eval.top_p", type=float, default=1.0, help="of the samples")
    flags.add_argument(
        "--eval.entropy_positions", type=int, default=2048, help="response tokens whose exact entropy is measured"
    )
    flags.add_argument(
        "--eval.annotated", default=None, help="an annotated data set: entropy and loss on its critical, other tokens"
    )
    flags.add_argument("--eval.benchmark_dir", default=None, help="folder of local copies of benchmarks, NAME.jsonl")
    stop_flag(flags, "eval")
    verifier_flags(flags, "eval")
    flags.set_defaults(**{"eval.verifier": None})  # math, or a benchmark's own
    return flags


def checkpoints(pairs: list[str]) -> dict[str, str]:
    """NAME=CHECKPOINT pairs, in order.

    Raises:
        InputError: a pair without `=`, a name that is no plain directory name, or one that occurs twice.
    """
    paths: dict[str, str] = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        # A name is a directory's; in a plot's legend, one that began with "_" would be left out.
        if not separator or not path or not re.fullmatch(r"\w[\w.-]*", name) or name.startswith("_"):
            raise InputError(f"--compare: {pair!r} is not NAME=CHECKPOINT")
        if name in paths:
            raise InputError(f"--compare: {name!r} is given twice")
        paths[name] = path
    return paths


def job_of(arguments: list[str] | None = None) -> EvaluateJob:
    """The job that the flags describe.

    Raises:
        InputError: names a flag and its value.
    """
    flags = vars(parser().parse_args(arguments))
    directory = flags["eval.benchmark_dir"]
    if directory is not None and not os.path.isdir(directory):
        raise InputError(f"--eval.benchmark_dir: no folder {directory!r}")
    positions = _at_least(flags, "eval.entropy_positions", 0)
    if flags["eval.annotated"] is not None and not positions:
        raise InputError("--eval.annotated: nothing is measured on it with --eval.entropy_positions 0")
    engines = {name: engine_settings(flags, path) for name, path in checkpoints(flags["compare"]).items()}
    return EvaluateJob(
        engines,
        source_settings(flags),
        evaluate_settings(flags),
        verifier_settings({**flags, "eval.verifier": flags["eval.verifier"] or "math"}, "eval"),
        pool_settings(flags, next(iter(engines.values()))),
        output_place(flags),
        own_verifier=flags["eval.verifier"] is None,
        benchmark_dir=directory,
        entropy_positions=positions,
        annotated=flags["eval.annotated"],
    )


def evaluate_settings(flags: dict[str, Any]) -> EvaluateSettings:
    """How responses are drawn.

    Raises:
        InputError: names a flag and its value.
    """
    samples = _at_least(flags, "eval.n_samples", 0)
    if samples > MAX_SAMPLES:
        raise InputError(f"--eval.n_samples: {samples} is more than {MAX_SAMPLES}")
    budget = _at_least(flags, "eval.max_new_tokens", 1)
    temperature, top_p = flags["eval.temperature"], flags["eval.top_p"]
    if not 0 < temperature < math.inf:
        raise InputError(f"--eval.temperature: {temperature:g} must be above 0; the greedy response is there anyway")
    if not 0 < top_p <= 1:
        raise InputError(f"--eval.top_p: {top_p:g} must be above 0 and at most 1")
    if "" in flags["eval.stop"]:
        raise InputError("--eval.stop: '' would end every response before it begins")
    return EvaluateSettings(samples, budget, flags["train.seed"], temperature, top_p, tuple(flags["eval.stop"]))


def _at_least(flags: dict[str, Any], name: str, least: int) -> int:
    value: int = flags[name]
    if value < least:
        raise InputError(f"--{name}: {value} must be at least {least}")
    return value


def main() -> int:
    """Evaluate, print the tables; 1 when questions are left for the next run."""
    job = job_of()
    metrics = evaluate(job)
    print(f"\n{tables(metrics)}\n\nall of it, with plots and responses: {job.output_dir / 'report.html'}")
    failed = [result["failed"] for results in metrics["results"].values() for result in results.values()]
    return 1 if any(failed) else 0


if __name__ == "__main__":
    run_command("evaluate", main)
