"""The commands as functions. The package exports each of them: `openrlhf_cft.annotate`, `openrlhf_cft.judge` ..."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openrlhf_cft import log
from openrlhf_cft.annotation.job import AnnotateJob
from openrlhf_cft.annotation.job import annotate as run_annotation
from openrlhf_cft.annotation.row_worker import AnnotateWorkerFactory
from openrlhf_cft.annotation.settings import AnnotateSettings
from openrlhf_cft.data.annotated import AnnotatedData, open_data, output
from openrlhf_cft.data.location import location
from openrlhf_cft.data.model_files import absolute
from openrlhf_cft.data.records import MASK
from openrlhf_cft.data.source import SourceSettings
from openrlhf_cft.engine.token_scores import BATCH_TOKENS
from openrlhf_cft.engine.vllm_engine import EngineSettings
from openrlhf_cft.jobs.pipeline import PoolSettings
from openrlhf_cft.masks.derive import DeriveSettings, Wish
from openrlhf_cft.masks.derive import derive as write_derived
from openrlhf_cft.masks.select import Budget
from openrlhf_cft.verify.judgement import Judgement
from openrlhf_cft.verify.sandbox import VerifierPool
from openrlhf_cft.verify.settings import VerifierSettings


def annotate(
    model: str,
    dataset: str,
    output_dir: str | Path,
    *,
    dataset_split: str = "train",
    input_key: str = "input",
    label_key: str = "label",
    output_key: str | None = None,
    id_key: str | None = None,
    apply_chat_template: bool = False,
    input_template: str | None = None,
    max_samples: int = 1_000_000,
    add_bos: str = "auto",
    special_tokens: str = "auto",
    top_k: int = 3,
    max_new_tokens: int = 512,
    exhaustive: bool = False,
    stop: Sequence[str] = (),
    keep_rollouts: bool = False,
    samples: int = 0,
    temperature: float = 1.0,
    verifier: str = "math",
    threshold: float = 0.5,
    num_engines: int = 1,
    tensor_parallel_size: int = 1,
    gpu_memory_utilization: float = 0.9,
    dtype: str = "auto",
    max_model_len: int | None = None,
    engine_args: Mapping[str, Any] | None = None,
    rows_in_flight: int = 64,
    ray_address: str | None = None,
    seed: int = 42,
) -> dict[str, Any]:
    """Annotate a data set, as `python -m openrlhf_cft.cli.annotate` does.

        openrlhf_cft.annotate("runs/model", "questions.jsonl", "annotated", input_key="question", label_key="answer")

    Most arguments have the last part of a flag's name: `input_key` is `--data.input_key`. A call with the same
    arguments resumes where the last one stopped.

    Returns:
        The summary, see `annotation.job.annotate`; `failed` counts the rows that this call could not finish.

    Raises:
        InputError: bad input, before any engine starts; the message names the flag and the value.
        JobError: the job cannot continue; finished rows are kept.
    """
    columns = (input_key, label_key, output_key, id_key)
    rendering, tokens = (apply_chat_template, input_template, max_samples), (add_bos, special_tokens)
    source = SourceSettings(dataset, dataset_split, *columns, *rendering, *tokens)
    log.show_unless_configured()
    extra, sizes = dict(engine_args or {}), (tensor_parallel_size, gpu_memory_utilization, max_model_len)
    engine = EngineSettings(absolute(model), dtype, *sizes, seed, extra, model, apply_chat_template)
    measured = (keep_rollouts, samples, temperature, seed)
    settings = AnnotateSettings(top_k, max_new_tokens, exhaustive, tuple(stop), *measured)
    factory = AnnotateWorkerFactory(engine, settings, VerifierSettings(verifier, threshold).checked())
    may_share = num_engines > 1 and engine.may_share_gpus
    pool = PoolSettings(num_engines, engine.gpus, rows_in_flight, ray_address, may_share)
    return run_annotation(AnnotateJob(source, factory, pool, location(str(output_dir))))


def load_annotated(path: str | Path) -> AnnotatedData:
    """Open an annotated data set: a directory, a Parquet file or a URI. Reading holds one batch in memory at a time.

        data = openrlhf_cft.load_annotated("annotated")
        data.count(), data.metadata["criterion"]            # (1082, "strict-3")
        for row in data.rows(["id", "response_token_ids", "critical_mask"]): ...

    Raises:
        InputError: the data set does not exist, a file is not whole, or the rows are not annotated ones.
    """
    return open_data(path)


def derive(
    dataset: str | Path,
    output_dir: str | Path,
    columns: Mapping[str, str],
    *,
    reference: str = MASK,
    share: float | None = None,
    threshold: float | None = None,
    seed: int = 42,
    model: str | None = None,
    reference_model: str | None = None,
    dtype: str = "auto",
    batch_tokens: int = BATCH_TOKENS,
) -> dict[str, float]:
    """Write a copy of an annotated data set with new mask columns, as `masks derive` does.

        openrlhf_cft.derive("annotated", "with-masks", {"strict_2": "strict-2", "same_count": "random"})

    Args:
        columns: by the name of each new column, the selection that makes it.
        reference: without a `share`, a selection takes as many tokens of a row as this mask has.

    Returns:
        By column, the share of response tokens whose weight is above 0.

    Raises:
        InputError: a column exists already, a selection is unknown, or the data that it needs are not stored.
    """
    data = open_data(dataset)
    settings = DeriveSettings(Budget(reference, share), threshold, seed, model, reference_model, dtype, batch_tokens)
    return write_derived(data, [Wish(*pair) for pair in columns.items()], settings, output(output_dir, [data]))


def judge(response: str, answer: str, verifier: str = "math") -> Judgement:
    """Judge one response in a worker process with limits of time and memory.

        openrlhf_cft.judge("so it is $5.00", "5").verdict                   # correct
        openrlhf_cft.judge("The answer is (B).", "B", verifier="choice")

    For many responses at once, use `VerifierPool`: its `judge` in an event loop, or its `judge_all` for a list.

    Args:
        verifier: `math`, `choice`, `exact`, or the path of a Python file with OpenRLHF's `reward_func`.

    Raises:
        InputError: there is no such verifier.
        VerifierError: the verifier cannot run.
    """
    return _pool(verifier).judge_all([(response, answer)])[0]


_pools: dict[str, VerifierPool] = {}


def _pool(verifier: str) -> VerifierPool:
    """A pool of workers that is kept for the next call, and ends with this process."""
    if verifier not in _pools:
        _pools.setdefault(verifier, VerifierPool(verifier))  # one that another thread was faster with never starts
    return _pools[verifier]


@atexit.register
def _close_pools() -> None:
    for pool in _pools.values():
        pool.close()


if hasattr(os, "register_at_fork"):  # a child has no threads to serve a pool, and must not end the parent's workers
    os.register_at_fork(after_in_child=_pools.clear)
