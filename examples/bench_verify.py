"""Verdicts per second, and what verifying costs decoding. `make bench-verify`; the last line is JSON.

    python examples/bench_verify.py --model PATH

- numbers: plain numbers, each another one, so no cache helps; as annotation asks, many at once over an event loop;
- latex: the honest pairs of the tests, each once;
- kinds: CPU time of one verdict by kind of answer, in this process, as a table;
- decoding: the same greedy responses from a warm engine, with and without verdicts on them, in turns. Two cores are
  too noisy to see the cost of one verdict a response, so each gets ten, and what they add is divided by ten.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from pathlib import Path

from make_questions import questions

from openrlhf_cft.engine.generate import Sampling
from openrlhf_cft.engine.vllm_engine import EngineSettings, VllmGenerator
from openrlhf_cft.verify.choice import judge_choice
from openrlhf_cft.verify.equality import forget
from openrlhf_cft.verify.math import judge_math
from openrlhf_cft.verify.sandbox import VerifierPool

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


async def decode(
    engine: VllmGenerator, rows: list[tuple[list[int], str]], pool: VerifierPool, wrong: range
) -> tuple[float, list[tuple[str, str]]]:
    """Seconds until all responses are there and verified; the texts with their answers.

    Each response is verified once for each number in `wrong`, against its answer plus that number. Numbers that no
    turn has had before keep the workers' caches out of it.
    """

    async def respond(prompt: list[int], answer: str) -> tuple[str, str]:
        generation = await engine.generate(prompt, Sampling(48))
        text = engine.decode(generation.token_ids)
        for more in wrong:
            await pool.judge(text, str(int(answer) + more))
        return text, answer

    started = time.perf_counter()
    pairs = await asyncio.gather(*(respond(*row) for row in rows))
    return time.perf_counter() - started, pairs


def median_interval(values: list[float], resamples: int = 2_000) -> tuple[float, float]:
    """The bounds between which the median lies in 95 % of resamples, drawn with replacement."""
    drawn = random.Random(0)
    medians = sorted(statistics.median(drawn.choices(values, k=len(values))) for _ in range(resamples))
    return medians[resamples // 40], medians[-resamples // 40]


async def latency(model: str, count: int, repetitions: int, each: int) -> dict[str, float]:
    """What one verdict a response adds to decoding, as a share: that of `each` verdicts, divided by `each`.

    That of `each` is the median of neighbours' ratios, less 1, with its interval.
    """
    engine, pool = VllmGenerator(EngineSettings(model)), VerifierPool("math")
    tokenizer = engine.tokenizer
    rows = []
    for row in questions(count, seed=7):
        messages = [{"role": "user", "content": row["question"]}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        rows.append((tokenizer(text, add_special_tokens=False)["input_ids"], row["answer"]))
    try:
        _, pairs = await decode(engine, rows, pool, range(each))
        alone = statistics.median([len(pairs) / await rate(pool, pairs) for _ in range(repetitions)])
        ratios: list[float] = []
        seconds: dict[str, list[float]] = {"without": [], "with": []}
        for turn in range(repetitions):
            order = ("without", "with") if turn % 2 else ("with", "without")
            wrong = {"without": range(0), "with": range((turn + 1) * each, (turn + 2) * each)}
            now = {name: (await decode(engine, rows, pool, wrong[name]))[0] for name in order}
            for name, value in now.items():
                seconds[name].append(value)
            ratios.append(now["with"] / now["without"])
            say(f"{len(rows)} responses in {now['without']:.2f} s, with {each} verdicts each in {now['with']:.2f} s")
    finally:
        pool.close()
        engine.close()
    medians = {f"decoding_seconds_{name}": round(statistics.median(values), 3) for name, values in seconds.items()}
    low, high = median_interval(ratios)
    return {
        "added_latency": round((statistics.median(ratios) - 1) / each, 4),
        "added_latency_from": round((low - 1) / each, 4),
        "added_latency_to": round((high - 1) / each, 4),
        "added_latency_of_all": round(statistics.median(ratios) - 1, 4),
        "verdicts_each": each,
        "verdicts_share": round(alone / medians["decoding_seconds_without"], 4),
        **medians,
        "responses": len(rows),
    }


async def run(own: argparse.Namespace) -> dict[str, float]:
    return {
        **await verdicts(own.verdicts, own.repetitions),
        **await latency(own.model, own.responses, own.turns, own.each),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--verdicts", type=int, default=20_000, help="plain numbers a repetition")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--responses", type=int, default=200, help="decoded in each turn")
    parser.add_argument("--turns", type=int, default=41, help="each with and without verdicts")
    parser.add_argument("--each", type=int, default=10, help="verdicts on each response in a turn with verdicts")
    own = parser.parse_args()
    print("\n".join(kinds()))
    print(json.dumps(asyncio.run(run(own))))


if __name__ == "__main__":
    main()
