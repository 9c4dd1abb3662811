"""From 1 to 64 engines on one machine, and from 1,000 rows to 100,000: `make bench-scale`; the last line is JSON.

    python examples/bench_scale.py [--engines 1 8 64] [--rows 1000 100000]

Everything is real but the engine and the verdicts. The engine sleeps as long as one would decode that does half a row
a second: a 7B model on one GPU, at 200 positions of 1.4 rollouts of 100 tokens each. The verdicts are made up.

- efficiency_at_N: rows a second and engine with N engines, relative to the first count. We count while all engines are
  up and there are rows left to begin.
- driver_mib_at_ROWS: the driver's largest resident memory, from reading the source to writing the data set.
- driver_growth: the last of these relative to the first.

The exit code is 1 if the last efficiency is under 0.95 or the growth over 1.2.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrlhf_cft.annotation.job import STATE, AnnotateJob, annotate
from openrlhf_cft.annotation.row_worker import AnnotateWorker, AnnotateWorkerFactory
from openrlhf_cft.annotation.settings import AnnotateSettings
from openrlhf_cft.data.location import location
from openrlhf_cft.data.records import Verdict
from openrlhf_cft.data.source import SourceSettings
from openrlhf_cft.engine.generate import Generation, Sampling
from openrlhf_cft.engine.vllm_engine import EngineSettings
from openrlhf_cft.jobs.engine_actor import PAYLOAD, Finished
from openrlhf_cft.jobs.pipeline import PoolSettings
from openrlhf_cft.jobs.workdir import Workdir
from openrlhf_cft.verify import Judgement
from openrlhf_cft.verify.settings import VerifierSettings

ROWS_IN_FLIGHT = 16  # of an engine; half a row a second, so a row takes 32 s
ROW_SECONDS = 32.0
RESPONSE = [3, 4, 5, 0]  # tokens of every response; 0 ends it
GENERATIONS = 3  # of a row, one after another: the response, and two rollouts at some position
ROWS_PER_ENGINE = 80
SEED = 0
LOWEST_EFFICIENCY, HIGHEST_GROWTH = 0.95, 1.2


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


class SleepingGenerator:
    """A `Generator` that takes its time, between half and one and a half of `seconds`, and says the same each time."""

    stop_token_ids = frozenset([0])
    vocabulary = None  # every id is a token
    max_model_len = 100
    dead = False

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.random = random.Random(f"{SEED} {os.getpid()}")

    def decode(self, token_ids: Sequence[int]) -> str:
        return " ".join(map(str, token_ids))

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
        """See `Generator.generate`."""
        await asyncio.sleep(self.seconds * self.random.uniform(0.5, 1.5))
        top = [[(token, -1.0) for token in (chosen, 1, 2)] for chosen in RESPONSE] if sampling.top_logprobs else []
        return Generation(RESPONSE[: sampling.max_tokens], True, [], top)

    def close(self) -> None:
        """Nothing to end."""


class MadeUpJudge:
    """Responses are correct, rollouts are not."""

    async def judge(self, response: str, answer: str, prompt: str) -> Judgement:
        correct = response == " ".join(map(str, RESPONSE))
        return Judgement(Verdict.CORRECT if correct else Verdict.WRONG)

    async def accepts_gold(self, answer: str, prompt: str) -> bool:
        return True

    def close(self) -> None:
        """Nothing to end."""


class TimedWorker(AnnotateWorker):
    """Adds to each row which engine did it, from when to when (seconds of one clock)."""

    async def work(self, row: dict[str, Any]) -> Finished:
        began = time.monotonic()
        finished = await super().work(row)
        finished.payload["timing"] = [os.getpid(), began, time.monotonic()]
        return finished


@dataclass(frozen=True)
class SleepingFactory(AnnotateWorkerFactory):
    """Workers of one run, which begin together: an engine that is up early would finish rows alone."""

    seconds: float
    engines: int
    directory: str

    def __call__(self) -> AnnotateWorker:
        Path(self.directory, f"up-{os.getpid()}").touch()
        while len(list(Path(self.directory).glob("up-*"))) < self.engines:
            time.sleep(0.5)
        return TimedWorker(SleepingGenerator(self.seconds), MadeUpJudge(), self.settings)  # type: ignore[arg-type]


def prepare(directory: Path, rows: int) -> None:
    """A tokenizer of eight words, and questions in them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config

    words = Tokenizer(models.WordLevel({str(i): i for i in range(8)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="0").save_pretrained(directory / "model")
    Qwen2Config(vocab_size=8).save_pretrained(directory / "model")
    (directory / "model" / "model.safetensors").touch()  # nothing reads weights
    with open(directory / "questions.jsonl", "w") as file:
        for number in range(rows):
            question = " ".join(str(1 + (number // 7**i) % 7) for i in range(10))
            file.write(json.dumps({"id": f"q{number}", "question": question, "answer": "1"}) + "\n")


def job(directory: Path, engines: int, rows: int, row_seconds: float) -> dict[str, float]:
    """One annotation, in a process of its own.

    Returns:
        The driver's largest resident memory in MiB, seconds, and rows a second and engine.
    """
    prepare(directory, rows)
    started = time.monotonic()
    settings = AnnotateSettings(top_k=3, max_new_tokens=len(RESPONSE))
    generation = row_seconds / GENERATIONS
    model = EngineSettings(str(directory / "model"))
    factory = SleepingFactory(model, settings, VerifierSettings("exact"), generation, engines, str(directory))
    source = SourceSettings(str(directory / "questions.jsonl"), input_key="question", label_key="answer")
    pool = PoolSettings(num_engines=engines, rows_in_flight=ROWS_IN_FLIGHT)
    summary = annotate(AnnotateJob(source, factory, pool, location(directory / "annotated")))
    assert summary["annotated"] == rows, summary
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = time.monotonic() - started
    return {"driver_mib": mib, "seconds": seconds, "rate": rate(directory, engines) if row_seconds else rows / seconds}


def rate(directory: Path, engines: int) -> float:
    """Rows a second and engine, from when all are at work until the last row is begun; parts of rows count as such."""
    outcomes = Workdir(location(directory / "annotated") / STATE, "bench").outcomes
    rows = [json.loads(row[PAYLOAD])["timing"] for row in outcomes.rows([PAYLOAD])]
    first: dict[int, float] = {}
    for engine, began, _ in rows:
        first[engine] = min(began, first.get(engine, began))
    assert len(first) == engines, f"{len(first)} of {engines} engines had a row"
    start, end = max(first.values()), max(began for _, began, _ in rows)
    parts = ((min(ended, end) - max(began, start)) / (ended - began) for _, began, ended in rows)
    return sum(part for part in parts if part > 0) / (end - start) / engines


def measure(engines: int, rows: int, row_seconds: float) -> dict[str, float]:
    """`job` in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="bench.") as directory:
        command = [sys.executable, __file__, "--job", directory, str(engines), str(rows), str(row_seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"bench: {engines} engines and {rows} rows:\n{done.stdout}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    say(f"{engines} engines, {rows} rows: {found}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000, 100_000])
    parser.add_argument("--job", nargs=4, default=None, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.job:
        directory, engines, rows, seconds = flags.job
        print(json.dumps(job(Path(directory), int(engines), int(rows), float(seconds))))
        return
    found: dict[str, float] = {}
    rates = {engines: measure(engines, engines * ROWS_PER_ENGINE, ROW_SECONDS)["rate"] for engines in flags.engines}
    for engines, value in rates.items():
        found[f"rows_per_second_at_{engines}"] = round(value * engines, 3)
        found[f"efficiency_at_{engines}"] = round(value / rates[flags.engines[0]], 3)
    for rows in flags.rows:
        measured = measure(2, rows, 0.0)
        found[f"driver_mib_at_{rows}"] = round(measured["driver_mib"])
        found[f"rows_per_second_at_{rows}"] = round(measured["rate"], 1)
    if flags.rows:
        found["driver_growth"] = round(
            found[f"driver_mib_at_{flags.rows[-1]}"] / found[f"driver_mib_at_{flags.rows[0]}"], 3
        )
    print(json.dumps(found), flush=True)
    efficient = not flags.engines or found[f"efficiency_at_{flags.engines[-1]}"] >= LOWEST_EFFICIENCY
    sys.exit(0 if efficient and found.get("driver_growth", 0) <= HIGHEST_GROWTH else 1)


if __name__ == "__main__":
    main()
