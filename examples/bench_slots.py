"""How well one annotating process keeps a fast engine busy: `make bench-scale` runs it; the last line is JSON.

    python examples/bench_slots.py [--slots 512] [--tokens_per_second 20000] [--rows 192]

Everything is real but the engine, which has as many slots as a GPU's and decodes a token in each of them at the same
pace. The math verifier judges every response, and Ray's pipeline brings the rows.

The measured time begins when all slots are full for the first time. It ends when the last row begins.

- slots_filled: share of the slots that decode in that time.
- by_tenth: the same for each tenth of it.
- requests_per_second: of that time.
- cpu_us_per_request: CPU time of the actor's process over the whole run, by request.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_scale import prepare

from openrlhf_cft.annotation.job import AnnotateJob, annotate
from openrlhf_cft.annotation.row_worker import AnnotateWorker, AnnotateWorkerFactory
from openrlhf_cft.annotation.settings import AnnotateSettings
from openrlhf_cft.data.location import location
from openrlhf_cft.data.source import SourceSettings
from openrlhf_cft.engine.generate import Generation, Sampling
from openrlhf_cft.engine.vllm_engine import EngineSettings
from openrlhf_cft.jobs.engine_actor import Finished
from openrlhf_cft.jobs.pipeline import PoolSettings
from openrlhf_cft.verify.sandbox import VerifierPool
from openrlhf_cft.verify.settings import VerifierSettings

RESPONSE = 100  # tokens of every response, so each row has 100 positions
LONGEST = 200  # tokens of a rollout: 1 to this many
CORRECT = 0.6  # share of rollouts that are
STOP, GOLD = 0, 1  # token ids: the end, and the gold answer


@dataclass
class Measured:
    """What the engine saw: how many requests decoded between two of its events."""

    events: list[tuple[float, int]] = field(default_factory=list)  # (seconds, change of the requests that decode)
    begun: list[float] = field(default_factory=list)  # when each row began

    def filled(self, start: float, end: float, slots: int) -> float:
        """The share of the slots that decode between two times."""
        area, active, before = 0.0, 0, start
        for moment, change in self.events:
            if moment > start:
                area += active * (min(moment, end) - before)
                before = min(moment, end)
            active += change
        return (area + active * (end - before)) / (end - start) / slots

    def full(self, slots: int) -> float:
        """When all slots decode for the first time."""
        active = 0
        for moment, change in self.events:
            active += change
            if active == slots:
                return moment
        raise SystemExit(f"bench: the {slots} slots are never full; more --rows?")


class SlotGenerator:
    """A `Generator` of so many requests at a time, first come first served; others wait."""

    stop_token_ids = frozenset([STOP])
    vocabulary = None  # every id is a token
    max_model_len = 1_000
    dead = False

    def __init__(self, slots: int, tokens_per_second: float) -> None:
        self.free, self.seconds = asyncio.Semaphore(slots), slots / tokens_per_second
        self.random, self.measured = random.Random(0), Measured()

    def decode(self, token_ids: Sequence[int]) -> str:
        """Each token is a word, and the last one before the stop is the answer."""
        words = ["and" if token_id > GOLD + 1 else f"the answer is {token_id}" for token_id in token_ids if token_id]
        return " ".join(words)

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
        """See `Generator.generate`. Rollouts ask for no log-probabilities, responses do."""
        own = bool(sampling.top_logprobs)
        length = RESPONSE if own else self.random.randint(1, LONGEST)
        answer = GOLD if own or self.random.random() < CORRECT else GOLD + 1
        async with self.free:
            self.measured.events.append((time.monotonic(), 1))
            await asyncio.sleep(length * self.seconds)
            self.measured.events.append((time.monotonic(), -1))
        ids = [*[GOLD + 2] * (length - 2), answer, STOP][-length:]
        top = [[(token, -1.0 - rank) for rank, token in enumerate((chosen, 4, 5, 6))] for chosen in ids] if own else []
        return Generation(ids, True, [], top)

    def close(self) -> None:
        """Nothing to end."""


class MeasuringWorker(AnnotateWorker):
    """Writes after each row what has been seen until then."""

    def __init__(self, generator: Any, verifier: VerifierPool, settings: AnnotateSettings, log: Path) -> None:
        super().__init__(generator, verifier, settings)
        self.measured, self.log, self.cpu = generator.measured, log, time.process_time()

    async def work(self, row: dict[str, Any]) -> Finished:
        self.measured.begun.append(time.monotonic())
        finished = await super().work(row)
        self.log.write_text(json.dumps({**vars(self.measured), "cpu": time.process_time() - self.cpu}))
        return finished


@dataclass(frozen=True)
class SlotFactory(AnnotateWorkerFactory):
    """The worker of the one engine."""

    slots: int
    tokens_per_second: float
    log: str

    def __call__(self) -> AnnotateWorker:
        generator: Any = SlotGenerator(self.slots, self.tokens_per_second)
        return MeasuringWorker(generator, VerifierPool(**vars(self.verifier)), self.settings, Path(self.log))


def report(seen: dict[str, Any], slots: int) -> dict[str, Any]:
    """The figures."""
    measured = Measured(seen["events"], seen["begun"])
    start, end = measured.full(slots), max(measured.begun)
    tenths = [start + (end - start) * tenth / 10 for tenth in range(11)]
    requests = sum(change > 0 and start <= moment < end for moment, change in measured.events)
    return {
        "slots_filled": round(measured.filled(start, end, slots), 3),
        "by_tenth": [round(measured.filled(*pair, slots), 3) for pair in itertools.pairwise(tenths)],
        "requests_per_second": round(requests / (end - start)),
        "cpu_us_per_request": round(seen["cpu"] / sum(change > 0 for _, change in measured.events) * 1e6),
        "seconds": round(end - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, default=512)
    parser.add_argument("--tokens_per_second", type=float, default=20_000)
    parser.add_argument("--rows", type=int, default=192)
    own = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench.") as name:
        directory = Path(name)
        prepare(directory, own.rows)
        settings = AnnotateSettings(top_k=3, max_new_tokens=RESPONSE + LONGEST)
        model, log = EngineSettings(str(directory / "model")), directory / "seen.json"
        rate = own.tokens_per_second
        factory = SlotFactory(model, settings, VerifierSettings("math"), own.slots, rate, str(log))
        source = SourceSettings(str(directory / "questions.jsonl"), input_key="question", label_key="answer")
        summary = annotate(AnnotateJob(source, factory, PoolSettings(), location(directory / "annotated")))
        assert summary["annotated"] == own.rows, summary
        print(json.dumps(report(json.loads(log.read_text()), own.slots)), flush=True)


if __name__ == "__main__":
    main()
