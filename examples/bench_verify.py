"""Verdicts per second, and what verifying costs decoding. `make bench-verify`; the last line is JSON.

    python examples/bench_verify.py --model PATH

- numbers: plain numbers, each another one, so no cache helps; as annotation asks, many at once over an event loop;
- latex: the honest pairs of the tests, each once;
- kinds: CPU time of one verdict by kind of answer, in this process, as a table;
- latency: how much longer a step of decoding takes while each greedy response that ends gets a verdict. The engine is
  full all the time and more responses wait, as in annotation. Verdicts are on and off for seconds: over whole
  batches, 10 s apart, two cores were too noisy (ratios of neighbours had a standard deviation of 11 %).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from make_questions import questions

from openrlhf_cft.engine.generate import Sampling
from openrlhf_cft.engine.vllm_engine import EngineSettings, VllmGenerator
from openrlhf_cft.verify.choice import judge_choice
from openrlhf_cft.verify.equality import forget
from openrlhf_cft.verify.math import judge_math
from openrlhf_cft.verify.sandbox import VerifierPool

LENGTH = 48  # tokens of a response, at most
SETTLING = 0.3  # seconds until a window's own verdicts are the only ones
TESTS = Path(__file__).parents[1] / "tests" / "verify"


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


async def rate(pool: VerifierPool, pairs: list[tuple[str, str]]) -> float:
    """Verdicts per second."""
    started = time.perf_counter()
    await asyncio.gather(*(pool.judge(*pair) for pair in pairs))
    return len(pairs) / (time.perf_counter() - started)


async def verdicts(count: int, repetitions: int) -> dict[str, float]:
    """Rates of one warm pool of two workers, the median over the repetitions."""
    found: dict[str, list[float]] = {"numbers": [], "latex": []}
    for repetition in range(repetitions):
        first = repetition * count
        numbers = [(f"First 7, then 12, so the answer is {i}.", str(i + i % 2)) for i in range(first, first + count)]
        latex = [
            (f"Therefore it is $\\boxed{{{answer}}}$.", gold) for _, gold, answer, _ in _lines("honest_pairs.tsv")
        ]
        with VerifierPool("math") as pool:
            await rate(pool, numbers[:100] * 2)
            found["numbers"].append(await rate(pool, numbers))
            found["latex"].append(await rate(pool, latex))
        say(f"numbers {found['numbers'][-1]:.0f}/s, latex {found['latex'][-1]:.0f}/s")
    return {f"{name}_per_second": round(statistics.median(rates), 1) for name, rates in found.items()}


def kinds() -> list[str]:
    """A Markdown table of the milliseconds that a verdict takes, by kind; each verdict is given three times."""
    cases = [(kind, f"\\boxed{{{answer}}}", gold) for kind, gold, answer, _ in _lines("honest_pairs.tsv")]
    cases += [(kind, json.loads(response), json.loads(gold)) for kind, response, gold, _ in _lines("verdicts.tsv")]
    times: dict[str, list[float]] = {}
    for kind, response, gold in cases:
        judge = judge_choice if kind.startswith("choice") else judge_math
        fastest = float("inf")
        for _ in range(3):
            forget()
            started = time.process_time()
            judge(response, gold)
            fastest = min(fastest, time.process_time() - started)
        times.setdefault(kind, []).append(1000 * fastest)
    lines = ["| kind | verdicts | median | slowest |", "|---|---|---|---|"]
    for kind, values in sorted(times.items(), key=lambda item: -max(item[1])):
        lines.append(f"| {kind} | {len(values)} | {statistics.median(values):.2f} ms | {max(values):.2f} ms |")
    return lines


def _lines(name: str) -> list[list[str]]:
    return [line.split("\t") for line in (TESTS / name).read_text("utf-8").splitlines() if not line.startswith("#")]


@dataclass
class Stream:
    """An engine that is full at any time, with more responses waiting, and the times at which its steps end."""

    engine: VllmGenerator
    pool: VerifierPool
    rows: list[tuple[list[int], str]]
    verifying: bool = False  # whether each response that ends gets a verdict
    stopping: bool = False
    verdicts: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(0))
    ends: list[float] = field(default_factory=list)

    async def respond(self) -> None:
        """One response after another, of all lengths: equal ones would end together, again and again."""
        while not self.stopping:
            prompt, answer = self.random.choice(self.rows)
            generation = await self.engine.generate(prompt, Sampling(self.random.randint(1, LENGTH)))
            text = self.engine.decode(generation.token_ids)
            if self.verifying:
                await self.pool.judge(text, answer)
                self.verdicts += 1

    async def probe(self) -> None:
        """A response that never ends: the engine's every step gives it a token."""
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        prompt, longest = self.rows[0][0], self.engine.max_model_len - len(self.rows[0][0])
        for number in itertools.count():
            params = SamplingParams(
                temperature=0.0,
                max_tokens=longest,
                ignore_eos=True,
                detokenize=False,
                output_kind=RequestOutputKind.DELTA,
            )
            async for _ in self.engine._llm.generate(tokens_input(prompt), params, f"probe-{number}"):
                self.ends.append(time.perf_counter())
                if self.stopping:
                    return

    async def window(self, verifying: bool, seconds: float) -> tuple[float, int]:
        """Seconds and steps while responses are verified, or are not; what the window before left is not counted."""
        self.verifying = verifying
        await asyncio.sleep(SETTLING)
        first = len(self.ends)
        await asyncio.sleep(seconds)
        ends = self.ends[first:]
        return ends[-1] - ends[0], len(ends) - 1


async def latency(model: str, count: int, blocks: int, seconds: float) -> dict[str, float]:
    """How much longer a step of decoding takes while each response gets a verdict, as a share with its interval.

    A block is two windows with verdicts between two without, or the other way round, by chance: so a machine that gets
    faster or slower adds nothing, and neither does what comes and goes in the stream.
    """
    engine = VllmGenerator(EngineSettings(model, engine_args={"max_num_seqs": count + 1}))
    pool, rows = VerifierPool("math"), prompts(engine, count)
    stream = Stream(engine, pool, rows)
    try:
        tasks = [asyncio.ensure_future(stream.respond()) for _ in range(count + count // 2)]
        tasks.append(asyncio.ensure_future(stream.probe()))
        await stream.window(True, 10 * seconds)  # all is warm
        found = []
        for number in range(blocks):
            outer = bool(stream.random.getrandbits(1))
            kinds = (outer, not outer, not outer, outer)
            windows = [(kind, *await stream.window(kind, seconds)) for kind in kinds]
            found.append([sum(w[i] for w in windows if w[0] is kind) for kind in (False, True) for i in (1, 2)])
            if number % 10 == 9:
                say(f"{number + 1}/{blocks} blocks: a step takes {ratio(found) - 1:+.2%} longer with verdicts")
        stream.stopping = True
        await asyncio.gather(*tasks)
    finally:
        pool.close()
        engine.close()
    low, high = interval(found)
    totals = [sum(column) for column in zip(*found, strict=True)]
    return {
        "added_latency": round(ratio(found) - 1, 4),
        "added_latency_from": round(low - 1, 4),
        "added_latency_to": round(high - 1, 4),
        "step_ms_without": round(1000 * totals[0] / totals[1], 2),
        "step_ms_with": round(1000 * totals[2] / totals[3], 2),
        "steps": round(totals[1] + totals[3]),
        "verdicts": stream.verdicts,
        "responses": count,
    }


def prompts(engine: VllmGenerator, count: int) -> list[tuple[list[int], str]]:
    """Questions as the engine gets them, with their answers."""
    rows = []
    for row in questions(count, seed=7):
        messages = [{"role": "user", "content": row["question"]}]
        text = engine.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        rows.append((engine.tokenizer(text, add_special_tokens=False)["input_ids"], row["answer"]))
    return rows


def ratio(blocks: list[list[float]]) -> float:
    """Time of a step with verdicts over that without, of (seconds, steps) without and with."""
    without, steps_without, with_verdicts, steps_with = (sum(column) for column in zip(*blocks, strict=True))
    return (with_verdicts / steps_with) / (without / steps_without)


def interval(blocks: list[list[float]], resamples: int = 2_000) -> tuple[float, float]:
    """The bounds between which the ratio lies in 95 % of resamples of the blocks."""
    drawn = random.Random(0)
    ratios = sorted(ratio(drawn.choices(blocks, k=len(blocks))) for _ in range(resamples))
    return ratios[resamples // 40], ratios[-resamples // 40]


async def run(own: argparse.Namespace) -> dict[str, float]:
    return {
        **await verdicts(own.verdicts, own.repetitions),
        **await latency(own.model, own.responses, own.blocks, own.seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--verdicts", type=int, default=20_000, help="plain numbers a repetition")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--responses", type=int, default=200, help="in flight while steps are timed")
    parser.add_argument("--blocks", type=int, default=60, help="of four windows each")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a window")
    own = parser.parse_args()
    print("\n".join(kinds()))
    print(json.dumps(asyncio.run(run(own))))


if __name__ == "__main__":
    main()
