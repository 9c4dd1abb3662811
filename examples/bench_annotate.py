"""Annotation against one rollout at a time and against batches. `make bench-annotate`; the last line is JSON.

    python examples/bench_annotate.py --model PATH

The same correct responses are annotated in turns, on one warm engine whose prefix cache is emptied before:

- ours:        all responses in flight, the next alternative only while the token is undecided;
- batched:     response after response, all positions of one at a time, its alternatives one after the other. The paper
               has them all in one batch, which is faster: this rival is still too weak, its ratio too good;
- sequential:  transformers `generate`, one rollout after another, all alternatives; a sample, scaled by rollouts;
- saturated:   the engine alone with all of our requests at once, three times over, nothing verified.

A second engine, in float32, compares masks with those of trying every alternative.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from make_questions import questions

from openrlhf_cft.annotate.annotator import AnnotateSettings, Annotator, Outcome, Status
from openrlhf_cft.annotate.engine import EngineSettings, VllmGenerator
from openrlhf_cft.annotate.generate import Generation, Sampling
from openrlhf_cft.verify.sandbox import VerifierPool

Row = tuple[list[int], str]  # prompt token ids, gold answer


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Recorder:
    """A `Generator` that remembers what it was asked and how much came out."""

    def __init__(self, generator: VllmGenerator) -> None:
        self.generator = generator
        self.stop_token_ids, self.max_model_len = generator.stop_token_ids, generator.max_model_len
        self.requests: list[tuple[list[int], Sampling]] = []
        self.tokens = 0

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
        self.requests.append((list(token_ids), sampling))
        generation = await self.generator.generate(token_ids, sampling)
        self.tokens += len(generation.token_ids)
        return generation

    async def score(self, token_ids: Sequence[int], start: int, top_logprobs: int) -> Generation:
        return await self.generator.score(token_ids, start, top_logprobs)


class Bench:
    """One engine, the verifier, and the ways to annotate with them."""

    def __init__(self, model: str, dtype: str, budget: int) -> None:
        self.engine = VllmGenerator(EngineSettings(model, dtype=dtype))
        self.verifier = VerifierPool("math")
        self.budget = budget

    def close(self) -> None:
        self.verifier.close()
        self.engine.close()

    def annotator(self, generator: Any, exhaustive: bool) -> Annotator:
        return Annotator(generator, self.verifier, self.engine.decode, AnnotateSettings(3, self.budget, exhaustive))

    async def correct_rows(self, rows: list[Row], count: int) -> list[Row]:
        """The first rows that the model answers right and ends by itself; this also warms the engine."""
        found = []
        generations = await asyncio.gather(
            *(self.engine.generate(prompt, Sampling(self.budget, top_logprobs=11)) for prompt, _ in rows)
        )
        for row, generation in zip(rows, generations, strict=True):
            judgement = await self.verifier.judge(self.engine.decode(generation.token_ids), row[1])
            if generation.stopped and judgement.verdict.value == "correct":
                found.append(row)
        say(f"{len(found)} of {len(rows)} responses are correct")
        return found[:count]

    async def ours(self, rows: list[Row], exhaustive: bool = False) -> tuple[float, list[Outcome], Recorder]:
        await self.engine._llm.reset_prefix_cache()
        recorder = Recorder(self.engine)
        annotator = self.annotator(recorder, exhaustive)
        started = time.perf_counter()
        outcomes = await asyncio.gather(*(annotator.annotate(prompt, answer) for prompt, answer in rows))
        return time.perf_counter() - started, outcomes, recorder

    async def batched(self, rows: list[Row]) -> tuple[float, list[Outcome], Recorder]:
        await self.engine._llm.reset_prefix_cache()
        recorder = Recorder(self.engine)
        annotator = self.annotator(recorder, exhaustive=True)
        started = time.perf_counter()
        outcomes = [await annotator.annotate(prompt, answer) for prompt, answer in rows]
        return time.perf_counter() - started, outcomes, recorder

    async def saturated(self, requests: list[tuple[list[int], Sampling]], times: int) -> float:
        """Decoded tokens per second with everything submitted at once."""
        await self.engine._llm.reset_prefix_cache()
        recorder = Recorder(self.engine)
        mix = requests * times
        random.Random(0).shuffle(mix)
        started = time.perf_counter()
        await asyncio.gather(*(recorder.generate(*request) for request in mix))
        return recorder.tokens / (time.perf_counter() - started)


def sequential(model: str, requests: list[tuple[list[int], Sampling]], stops: frozenset[int]) -> float:
    """Seconds of one greedy rollout with transformers, the mean over a sample."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype="auto").eval()
    started = 0.0
    for number, (ids, sampling) in enumerate([requests[0], *requests]):
        if number == 1:
            started = time.perf_counter()  # the first one only warms up
        given = torch.tensor([ids])
        loaded.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=sampling.max_tokens,
            do_sample=False,
            eos_token_id=sorted(stops),
            pad_token_id=min(stops),
        )
    return (time.perf_counter() - started) / len(requests)


def agreement(one: list[Outcome], other: list[Outcome]) -> float | None:
    """Share of mask bits that are the same, over rows that both annotated with the same response."""
    same = total = 0
    for left, right in zip(one, other, strict=True):
        if left.status is right.status is Status.ANNOTATED and left.response_token_ids == right.response_token_ids:
            total += len(left.critical_mask)
            same += sum(a == b for a, b in zip(left.critical_mask, right.critical_mask, strict=True))
    return same / total if total else None


def prompts(model: str, count: int) -> list[Row]:
    """Questions of the quickstart's mix, rendered."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = []
    for row in questions(count, seed=42):
        messages = [{"role": "user", "content": row["question"]}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        rows.append((tokenizer(text, add_special_tokens=False)["input_ids"], row["answer"]))
    return rows


async def speed(own: argparse.Namespace, bench: Bench) -> tuple[dict[str, Any], list[Row]]:
    """Everything but the float32 comparison, and the rows that were used."""
    rows = await bench.correct_rows(prompts(own.model, own.questions), own.rows)
    seconds: dict[str, list[float]] = {"ours": [], "batched": []}
    rates: list[float] = []
    for repetition in range(own.repetitions):
        for name in ("ours", "batched") if repetition % 2 == 0 else ("batched", "ours"):
            took, outcomes, recorder = await (bench.ours(rows) if name == "ours" else bench.batched(rows))
            seconds[name].append(took)
            say(f"{name} {took:.1f} s, {len(recorder.requests)} requests, {recorder.tokens / took:.0f} tokens/s")
            if name == "ours":
                ours, our_recorder = outcomes, recorder
                rates.append(recorder.tokens / took)
            else:
                all_tried, all_recorder = outcomes, recorder
    saturated = await bench.saturated(our_recorder.requests, 3)
    say(f"saturated {saturated:.0f} tokens/s")
    rollouts = [request for request in all_recorder.requests if not request[1].top_logprobs]
    sample = random.Random(0).sample(rollouts, min(own.sample, len(rollouts)))
    each = sequential(own.model, sample, bench.engine.stop_token_ids)
    say(f"transformers {each:.2f} s a rollout")
    positions = sum(len(outcome.critical_mask) for outcome in ours)
    took = statistics.median(seconds["ours"])
    found = {
        "speedup_vs_sequential": round(each * len(rollouts) / took, 2),
        "speedup_vs_batched": round(statistics.median(seconds["batched"]) / took, 2),
        "utilisation": round(statistics.median(rates) / saturated, 3),
        "mask_agreement_bf16": agreement(ours, all_tried),
        "rollouts_per_position": round(sum(outcome.rollouts for outcome in ours) / positions, 3),
        "decoded_tokens_per_position": round(our_recorder.tokens / positions, 2),
        "seconds_per_1000_positions": round(1000 * took / positions, 1),
        "responses": len(rows),
        "positions": positions,
        "seconds": {name: [round(value, 1) for value in values] for name, values in seconds.items()},
        "tokens_per_second": {"ours": round(statistics.median(rates)), "saturated": round(saturated)},
    }
    return found, rows


async def run(own: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed."""
    bench = Bench(own.model, "auto", own.max_new_tokens)
    try:
        found, rows = await speed(own, bench)
    finally:
        bench.close()
    steady = Bench(own.model, "float32", own.max_new_tokens)
    try:
        _, ours, _ = await steady.ours(rows)
        _, all_tried, _ = await steady.ours(rows, exhaustive=True)
    finally:
        steady.close()
    return {**found, "mask_agreement": agreement(ours, all_tried)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--rows", type=int, default=64, help="correct responses that are annotated, at most")
    parser.add_argument("--max_new_tokens", type=int, default=48)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--sample", type=int, default=24, help="rollouts that transformers does")
    own = parser.parse_args()
    print(json.dumps(asyncio.run(run(own))), flush=True)


if __name__ == "__main__":
    main()
