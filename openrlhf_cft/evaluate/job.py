"""The evaluation job: each checkpoint through the same Ray pipeline as annotation, resumable, then one table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from openrlhf_cft.annotate.engine import EngineSettings
from openrlhf_cft.annotate.engine_actor import PAYLOAD, STATUS
from openrlhf_cft.annotate.pipeline import PoolSettings
from openrlhf_cft.annotate.progress import line
from openrlhf_cft.annotate.source import SourceSettings
from openrlhf_cft.annotate.workdir import Workdir, versions, write_json
from openrlhf_cft.evaluate.metrics import metrics
from openrlhf_cft.evaluate.worker import EvaluateSettings, EvaluateWorkerFactory
from openrlhf_cft.storage import Place
from openrlhf_cft.verify.settings import VerifierSettings


@dataclass(frozen=True)
class EvaluateJob:
    """Everything that the command line says."""

    engines: dict[str, EngineSettings]  # by the name that the table gives a checkpoint
    source: SourceSettings
    settings: EvaluateSettings
    verifier: VerifierSettings
    pool: PoolSettings
    output_dir: Place


def evaluate(job: EvaluateJob) -> dict[str, Any]:
    """Evaluate all checkpoints; those that are done are not done again.

    Returns:
        Figures by checkpoint name, and the versions used; also written to `metrics.json`.

    Raises:
        ValueError: bad input, before any engine starts.
    """
    prepared = [(name, *_prepare(job, name)) for name in job.engines]
    found: dict[str, Any] = {}
    prepared[0][1].try_verifier(job.verifier)
    for name, work, config in prepared:
        factory = EvaluateWorkerFactory(job.engines[name], job.settings, job.verifier)
        with work.claimed():
            work.run(config["rows"], factory, job.pool, _progress)
        rows = [row for batch in work.outcomes.in_order(work.prompts) for row in batch.done.values()]
        evaluated = [json.loads(row[PAYLOAD]) for row in rows if row[STATUS] == "evaluated"]
        failed, too_long = config["rows"] - len(rows), len(rows) - len(evaluated)
        figures = metrics(evaluated) if evaluated else {}
        found[name] = {**figures, "failed": failed, "too_long": too_long, "seconds": work.seconds}
        write_json(job.output_dir / "metrics.json", {"checkpoints": found, "versions": versions()})
    return found


def _prepare(job: EvaluateJob, name: str) -> tuple[Workdir, dict[str, Any]]:
    """The work directory of one checkpoint, claimed."""
    engine = job.engines[name]
    work = Workdir(job.output_dir / name, f"evaluate {name}")
    record = {
        "model": engine.model,
        "dtype": engine.dtype,
        "max_model_len": engine.max_model_len,
        "engine_args": engine.engine_args,
        "sampling": asdict(job.settings),
        **job.verifier.record(),
    }
    return work, work.prepare(job.source, engine.model, record)


def _progress(counts: dict[str, float], seconds: float, total: int) -> str:
    """The progress line of evaluation."""
    return line(counts, seconds, total, f"{counts.get('decoded_tokens', 0):.0f} tokens")


def table(found: dict[str, Any]) -> str:
    """The figures, a line a checkpoint; a dash where nothing was measured."""
    passes = sorted({key for figures in found.values() for key in figures if key.startswith("pass@")}, key=_k)
    columns = ["questions", "accuracy", *passes, "mean_entropy", "sampled_length", "cut_off"]
    lines = [["", *columns]]
    for name, figures in found.items():
        lines.append([name, *(_cell(figures.get(column)) for column in columns)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=False)) for line in lines)


def _k(key: str) -> int:
    return int(key.removeprefix("pass@"))


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
