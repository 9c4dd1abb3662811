"""`python -m openrlhf_cft.cli.annotate`: questions with gold answers to an annotated data set."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from typing import Any

from openrlhf_cft.annotation.estimate import dry_run, estimate_text
from openrlhf_cft.annotation.job import AnnotateJob, annotate
from openrlhf_cft.annotation.row_worker import AnnotateWorkerFactory
from openrlhf_cft.annotation.settings import AnnotateSettings
from openrlhf_cft.annotation.summary import annotation_text
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

logger = logging.getLogger("openrlhf_cft.annotate")  # by name, since the module is run as __main__
DRY_RUN_ROWS = 256
EXAMPLE = (
    "python -m openrlhf_cft.cli.annotate --model.model_name_or_path runs/model --data.dataset train.jsonl "
    "--data.input_key question --data.label_key answer --data.apply_chat_template --ckpt.output_dir annotated"
)


def parser() -> argparse.ArgumentParser:
    """All flags of the command."""
    usage = "python -m openrlhf_cft.cli.annotate FLAG ..."
    flags = Parser(prog="annotate", usage=usage, description=__doc__, example=EXAMPLE)
    flags.add_argument(
        "--model.model_name_or_path", required=True, help="a checkpoint's folder, or its name on the hub"
    )
    data_flags(flags)
    flags.add_argument(
        "--data.output_key",
        default=None,
        help="column of a response to annotate (text, messages or token ids); default: the model's own greedy one",
    )
    engine_flags(flags)
    flags.add_argument("--annotate.top_k", type=int, default=3, help="k of Strict-k: k - 1 alternatives are tried")
    flags.add_argument("--annotate.max_new_tokens", type=int, default=512, help="token budget of a response")
    stop_flag(flags, "annotate")
    verifier_flags(flags, "annotate")
    flags.add_argument(
        "--annotate.exhaustive", action="store_true", help="try every alternative, even after a success"
    )
    kept = "keep the text of every rollout, for the view: 3 to 4 bytes for each decoded token, before compression"
    flags.add_argument("--annotate.keep_rollouts", action="store_true", help=kept)
    flags.add_argument(
        "--annotate.samples",
        type=int,
        default=0,
        help="sampled continuations of each tried alternative and of the token itself, beside the greedy one",
    )
    flags.add_argument("--annotate.temperature", type=float, default=1.0, help="of --annotate.samples")
    flags.add_argument(
        "--annotate.dry_run",
        type=int,
        nargs="?",
        const=DRY_RUN_ROWS,
        default=None,
        help="annotate nothing; estimate rollouts, tokens, hours and cost from this many random rows (256)",
    )
    flags.add_argument(
        "--annotate.gpu_hour_cost", type=float, default=None, help="price of one GPU-hour, for --annotate.dry_run"
    )
    return flags


def job_of(arguments: list[str] | None = None) -> AnnotateJob:
    """The job that the flags describe.

    Raises:
        InputError: names a flag and its value.
    """
    return _job(vars(parser().parse_args(arguments)))


def _job(flags: dict[str, Any]) -> AnnotateJob:
    """See `job_of`."""
    sample, cost = flags["annotate.dry_run"], flags["annotate.gpu_hour_cost"]
    if sample is not None and sample < 2:
        raise InputError(f"--annotate.dry_run: {sample} must be at least 2")
    if sample is None and cost is not None:
        raise InputError("--annotate.gpu_hour_cost: add --annotate.dry_run, which uses it")
    factory = AnnotateWorkerFactory(
        engine_settings(flags, flags["model.model_name_or_path"]),
        AnnotateSettings(
            flags["annotate.top_k"],
            flags["annotate.max_new_tokens"],
            flags["annotate.exhaustive"],
            tuple(flags["annotate.stop"]),
            flags["annotate.keep_rollouts"],
            flags["annotate.samples"],
            flags["annotate.temperature"],
            flags["train.seed"],
        ),
        verifier_settings(flags, "annotate"),
    )
    return AnnotateJob(source_settings(flags), factory, pool_settings(flags, factory.engine), output_place(flags))


def main() -> int:
    """Annotate, print the summary; 1 when rows are left for the next run. Or estimate what that would cost."""
    flags = vars(parser().parse_args())
    job = _job(flags)
    engine = job.factory.engine
    logger.info("annotate: engine %s", replace(engine, engine_args=engine.public_args).resolved())
    if flags["annotate.dry_run"] is not None:
        print(estimate_text(dry_run(job, flags["annotate.dry_run"], flags["annotate.gpu_hour_cost"])))
        return 0
    summary = annotate(job)
    print(annotation_text(summary))
    return 1 if summary["failed"] else 0


if __name__ == "__main__":
    run_command("annotate", main)
