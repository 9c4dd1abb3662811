"""Verifiable questions from reasoning-gym, seeded, train and test disjoint, as OpenRLHF-style JSONL.

    python examples/make_questions.py --output_dir runs/questions --train 160 --test 48

Each line has `id`, `question`, `answer` and `task`. The mix is one that a 135M model gets partly right.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from pathlib import Path

# Task, its options, and its share of the mix. Small tasks come to an end of distinct questions; the others fill up.
TASKS: list[tuple[str, dict[str, int]]] = [
    ("chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}),
    ("gcd", {"min_numbers": 2, "max_numbers": 2, "min_value": 1, "max_value": 20}),
    ("letter_counting", {"min_words": 1, "max_words": 2}),
]


def questions(count: int, seed: int) -> list[dict[str, str]]:
    """`count` distinct questions, the tasks in turn, in random order.

    Raises:
        SystemExit: the tasks do not have that many distinct questions.
    """
    import reasoning_gym

    unique: dict[str, dict[str, str]] = {}
    sources = [
        (name, iter(reasoning_gym.create_dataset(name, size=count * 20, seed=seed, **options)))
        for name, options in TASKS
    ]
    while len(unique) < count and sources:
        for name, source in list(sources):
            item = next((item for item in source if item["question"] not in unique), None)
            if item is None:
                sources = [pair for pair in sources if pair[0] != name]
                continue
            row = {
                "id": f"{name}-{len(unique)}",
                "question": item["question"],
                "answer": str(item["answer"]),
                "task": name,
            }
            unique[item["question"]] = row
    if len(unique) < count:
        raise SystemExit(
            f"only {len(unique)} distinct questions, {count} were asked for: add tasks or widen their options"
        )
    rows = list(unique.values())[:count]
    random.Random(seed).shuffle(rows)
    return rows


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """One JSON object a line; the file is whole or absent."""
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.replace(partial, path)
    print(f"questions: {len(rows)} in {path}, for example {rows[0]['question']!r} -> {rows[0]['answer']!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--train", type=int, default=160)
    parser.add_argument("--test", type=int, default=48)
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    rows = questions(args.train + args.test, args.seed)
    write(args.output_dir / "test.jsonl", rows[: args.test])
    write(args.output_dir / "train.jsonl", rows[args.test :])


if __name__ == "__main__":
    main()
