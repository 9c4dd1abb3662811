"""Estimate the cost of an annotation from a sample. All steps run, but only at a few positions of each response.

The sampled rows and positions are random, so the sums are unbiased. The 95 % intervals come from the spread over rows
and over the positions of a row, as for any sample in two stages (Cochran, Sampling Techniques, chapter 11). Hours are
computed with the sample's token rate, without a margin for that rate.
"""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from openrlhf_cft.annotation.annotator import Status
from openrlhf_cft.annotation.job import STATE, AnnotateJob
from openrlhf_cft.annotation.row_worker import AnnotateWorker, AnnotateWorkerFactory, settings_record
from openrlhf_cft.annotation.settings import Question
from openrlhf_cft.data.provenance import write_json
from openrlhf_cft.data.records import ALTERNATIVES, RESPONSE_IDS, SAMPLED
from openrlhf_cft.data.source import load_source
from openrlhf_cft.engine.platform import uses_gpu
from openrlhf_cft.engine.vllm_engine import VllmGenerator
from openrlhf_cft.errors import InputError
from openrlhf_cft.jobs.engine_actor import COUNTS, PAYLOAD, STATUS, Finished
from openrlhf_cft.jobs.progress import annotation_line
from openrlhf_cft.jobs.run_job import run_job
from openrlhf_cft.jobs.workdir import Workdir
from openrlhf_cft.verify.sandbox import VerifierPool

POSITIONS = 4  # of each response
NORMAL_95 = 1.96
TIMING, ENGINE = "timing", "engine"


def sampled_positions(question: Question, length: int) -> list[int]:
    """`POSITIONS` random positions of a response, the same each time."""
    return sorted(random.Random(repr(question)).sample(range(length), min(length, POSITIONS)))


class SampledWorker(AnnotateWorker):
    """Annotates the sampled positions, and records when each row began and ended."""

    positions = staticmethod(sampled_positions)

    async def work(self, row: dict[str, Any]) -> Finished:
        """See `AnnotateWorker.work`. The payload also has the engine, and the row's begin and end in Unix seconds."""
        began = time.time()  # wall time, because users pay for it; a busy machine rightly raises the estimate
        finished = await super().work(row)
        finished.payload[TIMING] = [began, time.time()]
        finished.payload[ENGINE] = f"{socket.gethostname()} {os.getpid()}"
        return finished


@dataclass(frozen=True)
class SampledFactory(AnnotateWorkerFactory):
    """Makes `SampledWorker`s."""

    def __call__(self) -> AnnotateWorker:
        return SampledWorker(VllmGenerator(self.engine), VerifierPool(**vars(self.verifier)), self.settings)


@dataclass(frozen=True)
class Amount:
    """An estimated sum over all rows of the source, and half the width of its interval."""

    value: float
    margin: float

    def __str__(self) -> str:
        return f"{self.value:,.0f} ± {self.margin:,.0f}"

    def times(self, factor: float) -> Amount:
        """The same amount in another unit."""
        return Amount(self.value * factor, self.margin * factor)


def dry_run(job: AnnotateJob, sample: int, gpu_hour_cost: float | None) -> dict[str, Any]:
    """Annotate a sample in `.annotate/dry_run`, which is emptied first, and estimate the whole job from it.

    Args:
        job: the job to estimate.
        sample: the number of rows, at most.
        gpu_hour_cost: price of a GPU hour, in any currency; None: no cost is estimated.

    Returns:
        The estimate, which is also written to `estimate.json` in that directory.

    Raises:
        InputError: bad input, before any engine starts.
        JobError: the sample could not be annotated.
    """
    state = Workdir(job.output_dir / STATE, "dry run")
    work = Workdir(state.root / "dry_run", "dry run")
    with state.claimed():
        work.root.clear()
        data = load_source(job.source)
        chosen = sorted(random.Random(job.factory.engine.seed).sample(range(len(data)), min(sample, len(data))))
        settings = settings_record(job.factory)
        config = work.prepare(job.source, job.factory.engine, settings, data.select(chosen))
        work.try_verifier(job.factory.verifier)
        factory = SampledFactory(**vars(job.factory))
        run_job(work, config["rows"], factory, job.pool, annotation_line)
        rows = [(row[STATUS], json.loads(row[PAYLOAD])) for row in work.outcomes.rows([STATUS, PAYLOAD])]
        paid = uses_gpu() or gpu_hour_cost is not None  # the head of a cluster may have no GPU
        figures = estimate(rows, len(data), job.pool.gpus_per_engine if paid else 0, gpu_hour_cost)
        write_json(work.root / "estimate.json", figures)
        return figures


def estimate(
    rows: list[tuple[str, dict[str, Any]]], total: int, gpus_per_engine: int, gpu_hour_cost: float | None
) -> dict[str, Any]:
    """Estimate the totals of the whole source from a sample.

    Args:
        rows: status and payload of each sampled row; at least one.
        total: number of rows of the source.
        gpus_per_engine: 0 on a machine without GPUs.
        gpu_hour_cost: see `dry_run`.

    Returns:
        Amounts as (value, margin) by name, and the figures that they are based on.

    Raises:
        InputError: no row of the sample was finished.
    """
    if not rows:
        raise InputError("--annotate.dry_run: no row of the sample was finished, so there is nothing to estimate from")
    costs = [_cost(status, payload) for status, payload in rows]
    amounts = {name: _amount([cost[name] for cost in costs], total) for name in costs[0]}
    began, ended = (edge(payload[TIMING][i] for _, payload in rows) for i, edge in ((0, min), (1, max)))
    decoded = sum(payload[COUNTS]["decoded_tokens"] for _, payload in rows)
    per_second = decoded / (ended - began)
    engines = len({payload[ENGINE] for _, payload in rows})  # a small sample may not reach all engines
    if decoded:
        amounts["engine_hours"] = amounts["decoded_tokens"].times(engines / per_second / 3600)
        if gpus_per_engine:
            amounts["gpu_hours"] = amounts["engine_hours"].times(gpus_per_engine)
            if gpu_hour_cost is not None:
                amounts["cost"] = amounts["gpu_hours"].times(gpu_hour_cost)
    return {
        "rows": total,
        "sampled_rows": len(rows),
        "sampled_tokens_per_second": per_second,
        "statuses": dict(Counter(status for status, _ in rows)),
        **{name: [amount.value, amount.margin] for name, amount in amounts.items()},
    }


def _cost(status: str, payload: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """The cost of one full row and its variance. The response counts as it is; the sampled positions stand for all."""
    counts, length, positions = payload[COUNTS], len(payload[RESPONSE_IDS]), payload[ALTERNATIVES]
    tried = [[alternative for alternative in position if not alternative["skipped"]] for position in positions]
    own = payload.get(SAMPLED) or [{"tokens": 0}] * len(tried)
    rolled = [
        float(sampled["tokens"] + sum(_decoded(alternative) for alternative in position))
        for sampled, position in zip(own, tried, strict=True)
    ]
    of_response = counts["decoded_tokens"] - sum(rolled)
    tokens, variance = _sum_over(rolled, length)
    return {
        "annotated": (float(status == Status.ANNOTATED.value), 0.0),
        "positions": (float(length if positions else 0), 0.0),
        "rollouts": _sum_over([float(len(position)) for position in tried], length),
        "decoded_tokens": (of_response + tokens, variance),
    }


def _decoded(alternative: dict[str, Any]) -> int:
    """The tokens that were decoded for one alternative."""
    return int(alternative["rollout_length"] + (alternative.get("sampled") or {"tokens": 0})["tokens"])


def _sum_over(values: list[float], total: int) -> tuple[float, float]:
    """The estimated sum over `total` items, and its variance, from a random sample without replacement."""
    if not values:
        return 0.0, 0.0
    count, mean = len(values), sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values) / max(1, count - 1)
    return total * mean, total * (total - count) * spread / count


def _amount(costs: list[tuple[float, float]], total: int) -> Amount:
    """The estimated sum over `total` rows. `costs` is a random sample of them: values, each with its own variance."""
    values, variances = zip(*costs, strict=True)
    value, between = _sum_over(list(values), total)
    return Amount(value, NORMAL_95 * (between + total / len(costs) * sum(variances)) ** 0.5)


def estimate_text(estimate: dict[str, Any]) -> str:
    """The lines that a dry run prints at its end."""
    lines = [f"estimate for {estimate['rows']} rows, from {estimate['sampled_rows']} of them (value ± margin, 95 %)"]
    for name in ("annotated", "positions", "rollouts", "decoded_tokens"):
        lines.append(f"{name.replace('_', ' '):<20}{Amount(*estimate[name])}")
    rate = f"at the {estimate['sampled_tokens_per_second']:.0f} decoded tokens/s of the sample, which is rather low"
    for name in ("engine_hours", "gpu_hours", "cost"):
        if name in estimate:
            value, margin = estimate[name]
            lines.append(f"{name.replace('_', ' '):<20}{value:,.2f} ± {margin:,.2f}   ({rate})")
    return "\n".join(lines)
