"""Annotated data sets that are made up for the tests of the view: hostile responses, and many ordinary ones."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizer_families import FAMILIES

from openrlhf_cft.cli import view
from openrlhf_cft.data import records
from openrlhf_cft.data.token_text import decode

# Name, and what a model may write. Each has to be shown as it is, and must not act.
HOSTILE = {
    "script": "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>",
    "end": "</script><!-- <script> --><style>body { display: none }</style>]]>",
    "entities": "1 &lt; 2 &amp;&amp; &#60;b&#62; &nbsp;",
    "bidi": "a\u202egnorw\u202c and \u2067rtl\u2069 \u200fmark",
    "unseen": "zero\u200bwidth\u200d nul\x00 bell\x07 escape\x1b[2J line\u2028sep \ufeffbom \U000e0041tag",
    "split": "𐍈 and 👩‍👩‍👧 are 數學",
    "slots": "{{ payload }} {{ script|safe }} {% raw %} ${x} `y` \\u003c \\n",
    "lines": "  two\n\n\tlines \n",
    "long": "W" * 3000,
    "rtl": "התשובה היא 42 بسم",
}


def tokenizer(folder: Path) -> Any:
    """A byte-level tokenizer, saved: its tokens split characters freely."""
    made = FAMILIES["byte_level"]()
    made.save_pretrained(folder)
    return made


def row(made: Any, name: str, text: str, rng: random.Random, others: int = 2, **more: Any) -> dict[str, Any]:
    """An annotated row of a text: about a third of the tokens critical."""
    ids = [*made(text, add_special_tokens=False)["input_ids"], made.eos_token_id]
    mask = [float(rng.random() < 0.3) for _ in ids]
    return {
        "id": name,
        "question": f"What is {text}?",
        "gold": text[:20],
        records.PROMPT: f"user: {text}",
        records.RESPONSE: decode(made, ids),
        records.PROMPT_IDS: [2, 3],
        records.RESPONSE_IDS: ids,
        records.MASK: mask,
        records.ALTERNATIVES: [
            [alternative(rng, rank, len(made), bool(w)) for rank in range(2, others + 2)] for w in mask
        ],
        records.VERDICT: "correct",
        records.ANSWER: text[:20],
        **more,
    }


def alternative(rng: random.Random, rank: int, vocabulary: int, failing: bool) -> dict[str, Any]:
    """One outcome, of a token that is critical or is not."""
    verdict = rng.choice(["wrong", "unparsable", "truncated", "timeout"]) if failing or rank == 2 else "correct"
    skipped = not failing and rank > 3
    return {
        "token_id": rng.randrange(2, vocabulary),
        "rank": rank,
        "logprob": math.log(rng.uniform(0.0001, 0.4)),
        "verdict": None if skipped else verdict,
        "rollout_length": 0 if skipped else rng.randrange(120),
        "truncated": verdict == "truncated",
        "skipped": skipped,
        "score": None if skipped else float(verdict == "correct"),
    }


def write(path: Path, rows: list[dict[str, Any]], metadata: dict[str, Any], texts: bool = False) -> Path:
    """Rows as an annotated data set; with `texts` an alternative has the text of its rollout."""
    fields = records.annotation_fields(texts, samples=any(records.SAMPLED in row for row in rows))
    kinds = {"question": pa.string(), "gold": pa.string(), **fields}
    schema = pa.schema([(name, kinds.get(name, pa.list_(pa.float32()))) for name in rows[0]])
    path.mkdir(parents=True)
    stated = {records.METADATA_KEY: json.dumps(metadata).encode()}
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.with_metadata(stated)), path / "part-00000.parquet")
    return path


def hostile(made: Any) -> list[dict[str, Any]]:
    """The `HOSTILE` texts as rows, with a column of floats and, where a rollout was made, its text."""
    rng = random.Random(1)
    found = [row(made, name, text, rng) for name, text in HOSTILE.items()]
    for each in found:
        # At most 0.0552, which divided by itself and times five is a little more than five.
        each["weights"] = [rng.choice([0.0, 0.0552, 0.05 * rng.random() ** 2]) for _ in each[records.MASK]]
        for item in (item for position in each[records.ALTERNATIVES] for item in position):
            item["text"] = None if item["skipped"] else "and so <b>it</b> is\u202e 5.\nDone."
    return found


def changed(made: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Another data set of the same model: every fourth bit differs, one row is gone, one is new, one says else."""
    found = []
    for each in rows[:-1]:
        bits = [1.0 - bit if at % 4 == 0 else bit for at, bit in enumerate(each[records.MASK])]
        found.append({**each, records.MASK: bits})
    index = next(at for at, each in enumerate(found) if each["id"] == "slots")
    rng = random.Random(2)
    for at, other in ((index, row(made, "slots", "another answer", rng)), (len(found), row(made, "new", "new", rng))):
        other["weights"] = other[records.MASK]
        found[at:] = [other, *found[at + 1 :]]
    return found


def metadata(folder: Path, made: Any, **more: Any) -> dict[str, Any]:
    """As the annotator writes it."""
    return {
        "model": str(folder),
        "tokenizer_fingerprint": records.tokenizer_fingerprint(made),
        "criterion": "strict-3",
        "verifier": "math",
        "source": {"input_key": "question", "label_key": "gold", "dataset": "made-up"},
        **more,
    }


def ordinary(made: Any, count: int, seed: int = 0, tokens: tuple[int, int] = (60, 200)) -> list[dict[str, Any]]:
    """Rows of so many tokens each, with two alternatives a token."""
    rng = random.Random(seed)
    words = ["the", "sum", "of", "12", "and", "35", "is", "47,", "so", "there", "are", "9", "apples.", "×", "Äpfel"]
    found = []
    for number in range(count):
        wanted = rng.randint(*tokens)
        ids = made(" ".join(rng.choices(words, k=wanted)))["input_ids"][: wanted - 1]
        text = decode(made, ids)
        found.append(row(made, f"made-{number}", text, rng))
        found[-1]["question"] = f"Question {number}: how many?"
    return found


def load(*arguments: object) -> Any:
    """What `view` shows of these data sets."""
    return view.load(view.job_of([*map(str, arguments), "--terminal"]))
