"""Files in GSM8K's and SVAMP's form as questions for the second study: `study.py --study ladder --given FOLDER`.

    python examples/evidence/ladder/gsm8k.py --train gsm8k_train.jsonl --test gsm8k_test.jsonl --output_dir FOLDER \\
      [--other svamp_test.jsonl]

The base is trained on the worked solutions of one half of the training file. The other half are the questions of the
comparison, for which only the last numbers are used.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path
from typing import Any

VALIDATION = 400  # questions, of the second half
STEPS = (2, 8)  # a question of fewer or more counts as one of so many


def problem(row_id: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row of GSM8K: without the calculator's marks, `<<48/2=24>>`, which are counted as the steps.

    Raises:
        SystemExit: names the row that has no `####`.
    """
    solution, found, answer = row["answer"].rpartition("####")
    if not found:
        raise SystemExit(f"gsm8k: the answer of {row_id} has no ####: {row['answer']!r:.80}")
    steps, answer = len(re.findall(r"<<[^<>]*>>", solution)), answer.strip().replace(",", "")
    return {
        "id": row_id,
        "question": row["question"],
        "answer": answer,
        "response": f"{re.sub(r'<<[^<>]*>>', '', solution).strip()}\nThe answer is {answer}.",
        "steps": min(max(steps, STEPS[0]), STEPS[1]),
    }


def question(row_id: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row of SVAMP: its story and its question as one."""
    story = row["Body"].strip()
    story += "" if story.endswith((".", "?", "!")) else "."
    return {"id": row_id, "question": f"{story} {row['Question'].strip()}", "answer": f"{float(row['Answer']):.12g}"}


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines() if line.strip()]


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def main() -> None:
    """Write `base`, `validation`, `train` and `test.jsonl`, and `other.jsonl` where one is given."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--train", type=Path, required=True, help="in GSM8K's form")
    flags.add_argument("--test", type=Path, required=True, help="in GSM8K's form")
    flags.add_argument("--other", type=Path, default=None, help="in SVAMP's form: answered by the tested models, too")
    flags.add_argument("--output_dir", type=Path, required=True)
    args = flags.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    known = [problem(f"train-{number}", row) for number, row in enumerate(read(args.train))]
    random.Random(0).shuffle(known)
    half = len(known) // 2
    write(args.output_dir / "base.jsonl", known[:half])
    write(args.output_dir / "validation.jsonl", known[half:][:VALIDATION])
    write(args.output_dir / "train.jsonl", known[half:][VALIDATION:])
    asked = [problem(f"test-{number}", row) for number, row in enumerate(read(args.test))]
    random.Random(1).shuffle(asked)  # the first of them are sampled
    write(args.output_dir / "test.jsonl", asked)
    if args.other:
        write(args.output_dir / "other.jsonl", [question(f"o-{i}", row) for i, row in enumerate(read(args.other))])


if __name__ == "__main__":
    main()
