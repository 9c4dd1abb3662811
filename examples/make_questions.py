"""Verifiable questions from reasoning-gym, seeded, all files disjoint, as OpenRLHF-style JSONL.

    python examples/make_questions.py --output_dir runs/questions --train 160 --test 48 [--mix easy]

Each line has `id`, `question`, `answer` and `task`. Both mixes are ones that a 135M model gets partly right.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from pathlib import Path

# Tasks and their options. Small tasks come to an end of distinct questions; the others fill up.
MIXES: dict[str, list[tuple[str, dict[str, int]]]] = {
    "easy": [
        ("chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}),
        ("gcd", {"min_numbers": 2, "max_numbers": 2, "min_value": 1, "max_value": 20}),
        ("letter_counting", {"min_words": 1, "max_words": 2}),
    ],
    "wide": [
        ("chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}),
        ("products", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}),
        ("gcd", {"min_numbers": 2, "max_numbers": 2, "min_value": 1, "max_value": 60}),
        ("letter_counting", {"min_words": 1, "max_words": 3}),
    ],
}


def questions(count: int, seed: int, mix: str = "easy") -> list[dict[str, str]]:
    """`count` distinct questions, the tasks of a mix in turn, in random order.

    Raises:
        SystemExit: the tasks do not have that many distinct questions.
    """
    import reasoning_gym

    unique: dict[str, dict[str, str]] = {}
    sources = [
        (name, iter(reasoning_gym.create_dataset(name, size=count * 20, seed=seed, **options)))
        for name, options in MIXES[mix]
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
    parser.add_argument("--validation", type=int, default=0)
    parser.add_argument("--mix", choices=sorted(MIXES), default="easy")
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    sizes = {"test": args.test, "validation": args.validation, "train": args.train}
    rows = questions(sum(sizes.values()), args.seed, args.mix)
    for name, size in sizes.items():
        if size:
            write(args.output_dir / f"{name}.jsonl", rows[:size])
        del rows[:size]


if __name__ == "__main__":
    main()
