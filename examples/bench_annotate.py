"""Annotation against one rollout at a time and against batches. `make bench-annotate`; the last line is JSON.

    python examples/bench_annotate.py --model PATH

The same correct responses are annotated in turns, on one warm engine whose prefix cache is emptied before:

- ours:        all responses in flight, the next alternative only while the token is undecided;
- batched:     the paper's way: response after response, all alternatives of one response in one batch;
- sequential:  transformers `generate`, one rollout after another, all alternatives; a sample, scaled by rollouts;
- saturated:   the engine alone with all of our requests at once, every prefix cached, nothing waited for or verified;
- float32:     a second engine, whose masks are compared with those of trying every alternative.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import operator
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from make_questions import questions
from sequential_rollouts import sequential

from openrlhf_cft.annotation.annotator import Annotator, Outcome, Position, Status
from openrlhf_cft.annotation.settings import AnnotateSettings, Question
from openrlhf_cft.data.records import Alternative
from openrlhf_cft.engine.generate import Generation, Sampling
from openrlhf_cft.engine.vllm_engine import EngineSettings, VllmGenerator
from openrlhf_cft.verify.sandbox import VerifierPool

NEAR_TIE = 0.25  # nats: bfloat16 has 8 bits, so logits of 16 to 32 are 0.125 apart, and two may round one step each


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Recorder:
    """A `Generator` that remembers what it was asked and how much came out."""

    def __init__(self, generator: VllmGenerator) -> None:
        self.generator = generator
        self.stop_token_ids, self.max_model_len = generator.stop_token_ids, generator.max_model_len
        self.requests: list[tuple[list[int], Sampling]] = []
        self.found: dict[tuple[int, ...], list[int]] = {}  # continuation by what it continues
        self.tokens = 0

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
        self.requests.append((list(token_ids), sampling))
        generation = await self.generator.generate(token_ids, sampling)
        self.tokens += len(generation.token_ids)
        self.found[tuple(token_ids)] = generation.token_ids
        return generation

    async def score(self, token_ids: Sequence[int], start: int, top_logprobs: int) -> Generation:
        return await self.generator.score(token_ids, start, top_logprobs)


@dataclass(frozen=True)
class Annotation:
    """One way of annotating all rows, done once."""

    seconds: float
    outcomes: list[Outcome]
    recorder: Recorder

    @property
    def rate(self) -> float:
        """Decoded tokens per second."""
        return self.recorder.tokens / self.seconds


class Batched(Annotator):
    """The paper's way: all alternatives of a response at once, none left out because its token is decided."""

    async def _position(self, question: Question, response: Generation, position: int, budget: int) -> Position:
        before, budget = response.token_ids[:position], budget - position - 1
        tried = (
            self.rollouts.greedy(question, [*before, candidate.token_id], candidate, budget)
            for candidate in self._candidates(response, position)
        )
        return Position(list(await asyncio.gather(*tried)), None)


class Bench:
    """One engine, the verifier, and the ways to annotate with them."""

    def __init__(self, model: str, dtype: str, budget: int) -> None:
        self.engine = VllmGenerator(EngineSettings(model, dtype=dtype))
        self.verifier = VerifierPool("math")
        self.budget = budget

    def close(self) -> None:
        self.verifier.close()
        self.engine.close()

    def annotator(self, kind: type[Annotator], generator: Any, exhaustive: bool) -> Annotator:
        return kind(generator, self.verifier, self.engine.decode, AnnotateSettings(3, self.budget, exhaustive))

    async def empty_cache(self) -> None:
        if not await self.engine._llm.reset_prefix_cache():
            raise RuntimeError("the engine did not empty its prefix cache: requests are still in flight")

    async def correct_rows(self, rows: list[Question], count: int) -> list[Question]:
        """The first rows that the model answers right and ends by itself; this also warms the engine."""
        found = []
        generations = await asyncio.gather(
            *(self.engine.generate(row.prompt_ids, Sampling(self.budget, top_logprobs=11)) for row in rows)
        )
        for row, generation in zip(rows, generations, strict=True):
            judgement = await self.verifier.judge(self.engine.decode(generation.token_ids), row.answer)
            if generation.stopped and judgement.verdict.value == "correct":
                found.append(row)
        say(f"{len(found)} of {len(rows)} responses are correct")
        return found[:count]

    async def ours(self, rows: list[Question], exhaustive: bool = False) -> Annotation:
        await self.empty_cache()
        recorder = Recorder(self.engine)
        annotator = self.annotator(Annotator, recorder, exhaustive)
        started = time.perf_counter()
        outcomes = await asyncio.gather(*(annotator.annotate(row) for row in rows))
        return Annotation(time.perf_counter() - started, outcomes, recorder)

    async def batched(self, rows: list[Question]) -> Annotation:
        await self.empty_cache()
        recorder = Recorder(self.engine)
        annotator = self.annotator(Batched, recorder, exhaustive=True)
        started = time.perf_counter()
        outcomes = [await annotator.annotate(row) for row in rows]
        return Annotation(time.perf_counter() - started, outcomes, recorder)

    async def gap(self, context: list[int], one: list[list[int]], other: list[list[int]]) -> float:
        """Nats between the two tokens where the first pair of differing continuations of `context` parts."""
        left, right = next(pair for pair in zip(one, other, strict=False) if pair[0] != pair[1])
        at = next(i for i, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1])
        seen = await self.engine.generate([*context, *left[:at]], Sampling(1, top_logprobs=32))
        logprobs = dict(seen.top_logprobs[0])
        return abs(logprobs[left[at]] - logprobs[right[at]])

    async def saturated(self, requests: list[tuple[list[int], Sampling]]) -> float:
        """Decoded tokens per second with everything submitted at once, when all was done once before."""
        for _ in range(2):
            recorder = Recorder(self.engine)
            started = time.perf_counter()
            await asyncio.gather(*(recorder.generate(*request) for request in requests))
        return recorder.tokens / (time.perf_counter() - started)


async def compare(bench: Bench, rows: list[Question], one: Annotation, other: Annotation) -> dict[str, Any]:
    """How many mask bits two annotations share, and why the others differ.

    Returns:
        `agreement`: share of equal bits among `bits` of `responses` rows; `other_responses`: rows left out because the
        greedy responses differ already; `gaps`: for each bit that differs the gap in nats of the two tokens where its
        rollouts part; `near_ties`: how many of these are no more than NEAR_TIE.
    """
    bits = responses = 0
    gaps = []
    for row, left, right in zip(rows, one.outcomes, other.outcomes, strict=True):
        if left.response_token_ids != right.response_token_ids:
            continue
        responses, bits = responses + 1, bits + len(left.critical_mask)
        for position, (a, b) in enumerate(zip(left.critical_mask, right.critical_mask, strict=True)):
            if a != b:
                context = [*row.prompt_ids, *left.response_token_ids[:position]]
                ours = _trails(context, left.alternatives[position], one.recorder)
                theirs = _trails(context, right.alternatives[position], other.recorder)
                gaps.append(await bench.gap(context, ours, theirs))
    return {
        "agreement": (bits - len(gaps)) / bits if bits else None,
        "bits": bits,
        "responses": responses,
        "other_responses": len(rows) - responses,
        "gaps": [round(gap, 3) for gap in gaps],
        "near_ties": sum(gap <= NEAR_TIE for gap in gaps),
    }


def _trails(context: list[int], alternatives: list[Alternative], recorder: Recorder) -> list[list[int]]:
    """What was tried after `context`: each alternative with its rollout, in rank order."""
    tried = [alternative.token_id for alternative in alternatives if not alternative.skipped]
    return [[token_id, *recorder.found.get((*context, token_id), [])] for token_id in tried]


def prompts(model: str, count: int, data: Path | None) -> list[Question]:
    """Questions of a file, or of the quickstart's mix, rendered."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = []
    for row in itertools.islice(map(json.loads, data.open()), count) if data else questions(count, seed=42):
        messages = [{"role": "user", "content": row["question"]}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        rows.append(Question(tokenizer(text, add_special_tokens=False)["input_ids"], row["answer"]))
    return rows


@dataclass(frozen=True)
class Speed:
    """What one engine gave."""

    figures: dict[str, Any]
    rows: list[Question]  # that were annotated
    seconds: float  # of the whole annotation, as we do it
    rollouts: list[tuple[list[int], Sampling]]  # one for each alternative


async def speed(own: argparse.Namespace, bench: Bench) -> Speed:
    """Everything that needs the first engine alone."""
    rows = await bench.correct_rows(prompts(own.model, own.questions, own.data), own.rows)
    ways = {"ours": bench.ours, "batched": bench.batched}
    runs: dict[str, list[Annotation]] = {name: [] for name in ways}
    limits = []
    for repetition in range(own.repetitions):
        for name in sorted(ways, reverse=repetition % 2 == 0):
            done = await ways[name](rows)
            runs[name].append(done)
            say(f"{name} {done.seconds:.1f} s, {len(done.recorder.requests)} requests, {done.rate:.0f} tokens/s")
            if name == "ours":
                limits.append(await bench.saturated(done.recorder.requests))
                say(f"saturated {limits[-1]:.0f} tokens/s")
    ours, all_tried = runs["ours"][-1], runs["batched"][-1]
    rollouts = [request for request in all_tried.recorder.requests if not request[1].top_logprobs]
    medians = {name: statistics.median(done.seconds for done in found) for name, found in runs.items()}
    rates = [done.rate for done in runs["ours"]]
    positions = sum(len(outcome.critical_mask) for outcome in ours.outcomes)
    figures = {
        "speedup_vs_batched": round(medians["batched"] / medians["ours"], 2),
        "utilisation": round(statistics.median(map(operator.truediv, rates, limits)), 3),
        "rollouts_per_position": round(sum(outcome.rollouts for outcome in ours.outcomes) / positions, 3),
        "decoded_tokens_per_position": round(ours.recorder.tokens / positions, 2),
        "seconds_per_1000_positions": round(1000 * medians["ours"] / positions, 1),
        "responses": sum(outcome.status is Status.ANNOTATED for outcome in ours.outcomes),
        "positions": positions,
        "seconds": {name: [round(done.seconds, 1) for done in found] for name, found in runs.items()},
        "tokens_per_second": {"ours": round(statistics.median(rates)), "saturated": round(statistics.median(limits))},
        "bf16": await compare(bench, rows, ours, all_tried),
    }
    return Speed(figures, rows, medians["ours"], rollouts)


async def run(own: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed."""
    with closing(Bench(own.model, "auto", own.max_new_tokens)) as bench:
        one = await speed(own, bench)
        stops = bench.engine.stop_token_ids
    with closing(Bench(own.model, "float32", own.max_new_tokens)) as steady:
        masks = [await steady.ours(one.rows), await steady.ours(one.rows, exhaustive=True)]
        exact = await compare(steady, one.rows, *masks)
    # Once no engine holds the GPU's memory any more.
    sample = random.Random(0).sample(one.rollouts, min(own.sample, len(one.rollouts)))
    each = min(sequential(own.model, sample, stops, dtype) for dtype in ("bfloat16", "float32"))
    speedup = {"speedup_vs_sequential": round(each * len(one.rollouts) / one.seconds, 2)}
    rest = {"mask_agreement": exact["agreement"], "float32": exact}
    return {**speedup, **one.figures, "sequential_seconds_per_rollout": round(each, 3), **rest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, help="JSONL with question and answer; default: made by reasoning-gym")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--rows", type=int, default=48, help="correct responses that are annotated, at most")
    parser.add_argument("--max_new_tokens", type=int, default=48)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--sample", type=int, default=24, help="rollouts that transformers does")
    own = parser.parse_args()
    print(json.dumps(asyncio.run(run(own))), flush=True)


if __name__ == "__main__":
    main()
