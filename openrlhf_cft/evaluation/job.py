"""The evaluation job: every checkpoint on every data set through the same Ray pipeline as annotation, then the report.

An output directory holds `metrics.json` (`summary.py`), `report.html`, `plots/`, every response in `samples/`, and
every exact entropy in `entropy/` and `critical/`. `.evaluate/DATA SET/CHECKPOINT/` holds the state of each pair
(`jobs/workdir.py`). `joint_run.py` lets checkpoints that can share an engine start it only once. The same command
resumes where it stopped. Another checkpoint or data set is added to what is there, and only that one is evaluated.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from openrlhf_cft.data.location import Location, without_credentials
from openrlhf_cft.data.model_files import load_config, weights_fingerprint
from openrlhf_cft.data.provenance import versions, write_json
from openrlhf_cft.data.source import SourceSettings
from openrlhf_cft.data.tokenizer import means_the_same
from openrlhf_cft.engine.scoring_process import Scored
from openrlhf_cft.engine.shared_engine import sharing
from openrlhf_cft.engine.vllm_engine import EngineSettings
from openrlhf_cft.errors import InputError
from openrlhf_cft.evaluation.entropy_cache import AnnotatedResponses, Unit, load_annotated, measure_units, sample_unit
from openrlhf_cft.evaluation.intervals import RESAMPLES
from openrlhf_cft.evaluation.joint_run import Evaluation, JointRun, hand_over_all
from openrlhf_cft.evaluation.metrics import measure
from openrlhf_cft.evaluation.report import Asked, write_report
from openrlhf_cft.evaluation.row_worker import EvaluateSettings, EvaluateWorkerFactory
from openrlhf_cft.evaluation.samples import EVALUATED, TOO_LONG, read_questions, write_samples
from openrlhf_cft.evaluation.sources import DataSet, load_data_sets
from openrlhf_cft.evaluation.summary import Result, annotated_summary, metrics_summary
from openrlhf_cft.jobs.pipeline import PoolSettings
from openrlhf_cft.jobs.progress import line
from openrlhf_cft.jobs.workdir import Workdir
from openrlhf_cft.verify.settings import VerifierSettings

STATE = ".evaluate"


@dataclass(frozen=True)
class EvaluateJob:
    """All settings of the command line."""

    engines: dict[str, EngineSettings]  # by the name that the tables give a checkpoint
    source: SourceSettings
    settings: EvaluateSettings
    verifier: VerifierSettings
    pool: PoolSettings
    output_dir: Location
    own_verifier: bool = True  # whether a benchmark's own verifier takes the place of `verifier`
    benchmark_dir: str | None = None  # of local copies
    entropy_positions: int = 0  # how many to measure, of each checkpoint on each data set and on annotated responses
    annotated: str | None = None  # an annotated data set


def evaluate(job: EvaluateJob) -> dict[str, Any]:
    """Evaluate all checkpoints on all data sets. Finished questions are not repeated.

    Returns:
        The content of `metrics.json`.

    Raises:
        InputError: bad input, before any engine starts.
        JobError: the job cannot continue; finished rows are kept.
    """
    for engine in job.engines.values():
        load_config(engine.model, "--compare", engine.engine_args.get("revision"))
        engine.load_tokenizer("--compare")
    sets = load_data_sets(job.source, job.verifier, job.own_verifier, job.benchmark_dir)
    annotated = _annotated(job)
    with ExitStack() as claims:  # held to the end: bad input of one pair leaves no state of the others either
        pairs = [_prepare(job, data, checkpoint, claims) for checkpoint in job.engines for data in sets]
        for verifier, pair in {pair.data.verifier: pair for pair in pairs}.items():
            pair.work.try_verifier(verifier)
        runs = [_joint_run(job, list(group), pairs, claims) for group in sharing(job.engines)]
        return _evaluated(job, sets, runs, annotated)


def _joint_run(job: EvaluateJob, checkpoints: list[str], pairs: Sequence[Evaluation], claims: ExitStack) -> JointRun:
    """The run of checkpoints that share an engine, claimed until `claims` ends."""
    evaluations = [pair for pair in pairs if pair.checkpoint in checkpoints]
    run = JointRun(job.output_dir / STATE, checkpoints[0], evaluations)
    claims.enter_context(run.work.claimed())
    return run


def _evaluated(
    job: EvaluateJob, sets: list[DataSet], runs: list[JointRun], annotated: AnnotatedResponses | None
) -> dict[str, Any]:
    """Sample, measure, report: the content of `metrics.json`."""
    for folder in ("samples", "entropy", "critical", "plots"):
        (job.output_dir / folder).make_dir()
    for data in sets:
        _rename(job.output_dir, data)
    hand_over_all(job.output_dir / STATE, runs)
    counts: dict[str, dict[str, int]] = {}
    for run in runs:
        _sample(job, run)
        counts |= {pair.name: _write(job, pair) for pair in run.evaluations}
    pairs = [pair for run in runs for pair in run.evaluations]
    results, critical = _measure(job, pairs, counts, annotated)
    metrics = metrics_summary(results, job.settings.seed)
    if annotated is not None:
        about = annotated_summary(annotated.weights, critical, job.settings.seed)
        metrics["annotated"] = {"path": without_credentials(annotated.path), **about}
    metrics |= _about(job, sets)
    write_json(job.output_dir / "metrics.json", metrics)
    asked = {pair.data.name: Asked(pair.work.prompts, pair.data.source.input_key) for pair in pairs}
    write_report(job.output_dir, metrics, asked)
    return metrics


def _rename(output_dir: Location, data: DataSet) -> None:
    """Rename the files of a data set to its name, which depends on the other data sets: `test`, later `a-test`."""
    name_file = output_dir / STATE / data.key / "name"
    before = name_file.read_text() if name_file.exists() else data.name
    for folder in ("samples", "entropy") if before != data.name else ():
        for file in (output_dir / folder).files(".parquet"):
            name, separator, checkpoint = file.name.partition("--")
            if name == before and separator:
                file.move(output_dir / folder / f"{data.name}--{checkpoint}")
    name_file.write_text(data.name)


def _measure(
    job: EvaluateJob, pairs: list[Evaluation], counts: dict[str, dict[str, int]], annotated: AnnotatedResponses | None
) -> tuple[dict[str, dict[str, Result]], dict[str, list[Scored]]]:
    """The results of each checkpoint by data set, and its scores of the annotated responses."""
    results: dict[str, dict[str, Result]] = {pair.data.name: {} for pair in pairs}
    critical: dict[str, list[Scored]] = {}
    for checkpoint in job.engines:
        own = [pair for pair in pairs if pair.checkpoint == checkpoint]
        units = [_entropy_unit(job, pair) for pair in own]
        if annotated is not None:
            file = job.output_dir / "critical" / f"{checkpoint}.parquet"
            units.append(Unit(file, annotated.keys, annotated.sequences))
        scored = measure_units(job.engines[checkpoint].model, units, f"evaluate {checkpoint}")
        for pair, entropies in zip(own, scored, strict=False):
            questions = read_questions(_samples_file(job, pair))
            measured = measure(questions, job.settings.n_samples, pair.data.has_answers)
            results[pair.data.name][checkpoint] = Result(measured, counts[pair.name], pair.work.seconds, entropies)
        if annotated is not None:
            critical[checkpoint] = [scored[-1][key] for key in annotated.keys]
    return results, critical


def _prepare(job: EvaluateJob, data: DataSet, checkpoint: str, claims: ExitStack) -> Evaluation:
    """The work directory of one checkpoint and data set, claimed until `claims` ends."""
    engine = job.engines[checkpoint]
    work = Workdir(job.output_dir / STATE / data.key / checkpoint, f"evaluate {checkpoint} on {data.name}")
    record = {
        "model": engine.shown,
        "weights": weights_fingerprint(engine.model, revision=engine.engine_args.get("revision")),
        "dtype": engine.dtype,
        "max_model_len": engine.max_model_len,
        "engine_args": engine.public_args,
        "sampling": job.settings.record(),
        **data.verifier.record(),
    }
    claims.enter_context(work.claimed())
    config = work.prepare(data.source, engine, record, data.rows)
    return Evaluation(checkpoint, data, work, config["rows"])


def _annotated(job: EvaluateJob) -> AnnotatedResponses | None:
    """The annotated responses to score. Refuses them if their token ids mean something else to a checkpoint."""
    if job.annotated is None or not job.entropy_positions:
        return None
    annotated = load_annotated(job.annotated, job.entropy_positions, job.settings.seed)
    for name, engine in job.engines.items():
        if not means_the_same(annotated.fingerprint, engine.load_tokenizer(), annotated.path):
            raise InputError(
                f"--eval.annotated: {job.annotated!r} was annotated with another tokenizer than that of "
                f"{name}={engine.shown}, for which its token ids mean nothing"
            )
    return annotated


def _sample(job: EvaluateJob, run: JointRun) -> None:
    """Sample and verify the remaining questions of some checkpoints."""
    verifiers = {pair.data.key: pair.data.verifier for pair in run.evaluations}

    def factory(checkpoints: Collection[str]) -> EvaluateWorkerFactory:
        return EvaluateWorkerFactory({name: job.engines[name] for name in checkpoints}, job.settings, verifiers)

    def about(pair: Evaluation) -> str:
        return pair.work.first_prompt(job.engines[pair.checkpoint], job.settings.stop)

    run.finish(factory, job.pool, _progress, about)


def _write(job: EvaluateJob, pair: Evaluation) -> dict[str, int]:
    """Write the samples file; returns how many questions are evaluated, too long, and not finished."""
    counts = write_samples(pair.work, pair.data.name, pair.checkpoint, _samples_file(job, pair))
    return {**counts, "failed": pair.rows - counts[EVALUATED] - counts[TOO_LONG]}


def _samples_file(job: EvaluateJob, pair: Evaluation) -> Location:
    return job.output_dir / "samples" / f"{pair.name}.parquet"


def _entropy_unit(job: EvaluateJob, pair: Evaluation) -> Unit:
    """The samples whose exact entropies are measured."""
    file = job.output_dir / "entropy" / f"{pair.name}.parquet"
    samples = _samples_file(job, pair)
    return sample_unit(samples, pair.work.prompts, file, job.entropy_positions, job.settings.seed)


def _progress(counts: dict[str, float], seconds: float, total: int) -> str:
    """The progress line of evaluation."""
    return line(counts, seconds, total, f"{counts.get('decoded_tokens', 0):.0f} tokens")


def _about(job: EvaluateJob, sets: list[DataSet]) -> dict[str, Any]:
    """The settings, checkpoints, data sets and versions that the figures belong to."""
    return {
        "settings": {**job.settings.record(), "entropy_positions": job.entropy_positions, "resamples": RESAMPLES},
        "checkpoints": {name: engine.shown for name, engine in job.engines.items()},
        "data_sets": {data.name: data.record() for data in sets},
        "versions": versions(),
    }
