"""Word problems of 2 to 8 steps with worked solutions, seeded. No two files share a story or its numbers.

    python examples/evidence/ladder/problems.py --output_dir questions --base 3000 --train 1000 --test 1000

Each line has `id`, `question`, `answer`, `response` (a worked solution), `steps` (calculations in the shortest
solution) and `frame` (the story, from `frames.json`). A quantity starts at a number, and what comes in or goes out
changes it: one calculation for a plain number, two for groups of equal size. Some stories have a sentence that does
not matter.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ("Ada", "Ben", "Carla", "David", "Ella", "Finn", "Grace", "Hugo", "Ines", "Jack", "Kim", "Leo", "Mia", "Noah")
SPLITS = ("test", "validation", "train", "base")  # in this order: more of the last one changes none of the others
STEPS = {2: 5, 3: 5, 4: 3, 5: 2, 6: 1, 7: 1, 8: 1}  # number of steps: how often
DISTRACTED = 0.3  # of the questions
LARGE = 0.1  # of the questions: numbers of three digits
# Long sentences with few numbers, so that most tokens can be said in another way: only what comes in or goes out and
# the new total are written.
PLUS = (
    "Then {b} more {unit} come in, and when we add them to what was there before, the new total is {c}.",
    "After that the amount goes up by {b}, so from this point on we have to go on counting with {c} {unit} instead.",
    "The next sentence of the story brings {b} {unit} more, which means that there are {c} of them at this point.",
    "We add the {b} {unit} that are mentioned next to all of the others from before, and this gives us {c} in all.",
    "Next, something is gained: it is {b} {unit}, and together with the rest of them that makes {c} altogether.",
    "As another {b} {unit} are put on top of what we already had, the whole amount grows and is now {c}.",
    "Now comes a part of the story where the number gets larger by {b}, and so the result of this step is {c} {unit}.",
)
MINUS = (
    "Then {b} of the {unit} go away, and when we take them from what was there before, the new total is {c}.",
    "After that the amount goes down by {b}, so from this point on we have to go on counting with {c} {unit} instead.",
    "The next sentence of the story takes {b} {unit} away, which means that there are {c} of them at this point.",
    "We subtract the {b} {unit} that are mentioned next from all of the others from before, and this leaves us {c}.",
    "Next, something is lost: it is {b} {unit}, and without them the rest of what we had comes to {c} altogether.",
    "As {b} of the {unit} are taken out of what we already had, the whole amount shrinks and is now {c}.",
    "Now comes a part of the story where the number gets less by {b}, and so the result of this step is {c} {unit}.",
)
TIMES = (
    "Here the story speaks of groups: there are {a} of them with {b} {unit} in each, and so this makes {c} in all.",
    "To know how many {unit} are meant, we multiply {a} by {b}, because all groups are of equal size, and get {c}.",
    "Since it is {a} times the same number, namely {b}, we do not have to add them one by one: it is {c} {unit}.",
    "Before we can go on, we have to work out the groups of {unit}: {a} of them with {b} each are {c} together.",
    "We count the {unit} in the groups first, and as {a} groups of {b} are a product, there are {c} of them.",
    "This is a product, since every one of the {a} groups has {b} {unit} in it, and its value turns out to be {c}.",
    "With {b} {unit} in each group and {a} such groups in the story, the number that we are looking for here is {c}.",
)


@dataclass(frozen=True)
class Change:
    """Something comes in or goes out: `groups` of `size`, or a plain number where `groups` is 0."""

    sign: int
    size: int
    groups: int = 0

    @property
    def amount(self) -> int:
        return self.size * (self.groups or 1)

    @property
    def steps(self) -> int:
        return 2 if self.groups else 1


def changes(chance: random.Random, start: int, steps: int, large: bool) -> list[Change]:
    """Changes of that many steps in all, in an order in which the quantity stays above 0 and below 100, or 1,000."""
    done: list[Change] = []
    total = start
    while (left := steps - sum(change.steps for change in done)) > 0:
        groups = chance.randint(2, 5) if left > 1 and chance.random() < 0.2 else 0
        size = chance.randint(2, 9) if groups else chance.randint(2, 60 if large else 9)
        change = Change(chance.choice((1, -1)), size, groups)
        if 0 < total + change.sign * change.amount < (1000 if large else 100):
            done.append(change)
            total += change.sign * change.amount
    return done


def story(chance: random.Random, frame: dict[str, Any], start: int, events: list[Change]) -> str:
    """The question: a sentence for each change, in order, and perhaps one that does not matter."""
    who, friend = chance.sample(NAMES, 2)

    def say(sentence: str, **numbers: int) -> str:
        return sentence.format(who=who, friend=friend, **numbers)

    sentences = []
    for event in events:
        kind = ("packs_" if event.groups else "") + ("gain" if event.sign > 0 else "loss")
        sentences.append(say(chance.choice(frame[kind]), n=event.groups or event.size, m=event.size))
    if chance.random() < DISTRACTED:
        sentences.insert(chance.randint(0, len(events)), say(chance.choice(frame["noise"]), n=chance.randint(3, 60)))
    return " ".join([say(frame["start"], n=start), *sentences, say(frame["ask"])])


def solution(chance: random.Random, unit: str, start: int, events: list[Change]) -> str:
    """A worked solution: each step in a phrasing drawn at random, and in an order in which no total is below 0.

    The groups are multiplied first, or each where it is needed.
    """

    def step(phrasings: tuple[str, ...], **numbers: int) -> str:
        return chance.choice(phrasings).format(**numbers, unit=unit)

    def product(event: Change) -> str:
        return step(TIMES, a=event.groups, b=event.size, c=event.amount)

    order = reordered(chance, start, events)
    ahead = chance.random() < 0.5
    lines = [product(event) for event in order if event.groups and ahead]
    total = start
    for event in order:
        if event.groups and not ahead:
            lines.append(product(event))
        total += event.sign * event.amount
        lines.append(step(PLUS if event.sign > 0 else MINUS, b=event.amount, c=total))
    return " ".join([*lines, f"The answer is {total}."])


def reordered(chance: random.Random, start: int, events: list[Change]) -> list[Change]:
    """The changes in the story's order, or half of the time in another in which no total is below 0."""
    order = list(events)
    if chance.random() < 0.5:
        for _ in range(8):
            chance.shuffle(order)
            if all(value >= 0 for value in totals(start, order)):
                return order
    return list(events)


def totals(start: int, events: list[Change]) -> list[int]:
    """The quantity after each change."""
    values = [start]
    for event in events:
        values.append(values[-1] + event.sign * event.amount)
    return values[1:]


def rows(counts: dict[str, int], seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The split and the row, of as many problems for each split as `counts` says; no two have the same numbers."""
    frames = json.loads((Path(__file__).parent / "frames.json").read_text())
    used = set()
    for split in SPLITS:
        chance = random.Random(f"{split} {seed}")
        own = [frame for frame in frames if frame["split"] == split]
        for number in range(counts.get(split, 0)):
            steps = chance.choices(list(STEPS), list(STEPS.values()))[0]
            while True:
                large = chance.random() < LARGE
                start = chance.randint(100, 400) if large else chance.randint(5, 60)
                events = changes(chance, start, steps, large)
                key = (start, *events)
                if key not in used:
                    break
            used.add(key)
            frame = chance.choice(own)
            yield (
                split,
                {
                    "id": f"{split}-{number}",
                    "question": story(chance, frame, start, events),
                    "answer": str(totals(start, events)[-1]),
                    "response": solution(chance, frame["unit"], start, events),
                    "steps": steps,
                    "frame": frame["name"],
                },
            )


def main() -> None:
    """Write a file for each split."""
    flags = argparse.ArgumentParser(description="Make word problems with worked solutions.")
    flags.add_argument("--output_dir", type=Path, required=True)
    flags.add_argument("--seed", type=int, default=0)
    for split in SPLITS:
        flags.add_argument(f"--{split}", type=int, default=0, help="problems")
    args = flags.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {split: [] for split in SPLITS}
    for split, row in rows({split: getattr(args, split) for split in SPLITS}, args.seed):
        lines[split].append(json.dumps(row) + "\n")
    for split in SPLITS:
        if lines[split]:
            partial = args.output_dir / f"{split}.jsonl.partial"
            partial.write_text("".join(lines[split]))
            partial.replace(args.output_dir / f"{split}.jsonl")


if __name__ == "__main__":
    main()
