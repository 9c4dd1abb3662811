"""An evaluation without an engine: a pipeline that writes made-up responses, and a reader of the page."""

from __future__ import annotations

import html.parser
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openrlhf_cft.data.location import Location
from openrlhf_cft.data.records import ID, Verdict
from openrlhf_cft.data.source import NUMBER
from openrlhf_cft.errors import Failure
from openrlhf_cft.evaluation.joint_run import JointId
from openrlhf_cft.evaluation.samples import EVALUATED, TOO_LONG, SampledResponse, to_payload
from openrlhf_cft.jobs.engine_actor import PAYLOAD, STATUS
from openrlhf_cft.jobs.finished_rows import Outcomes

HOSTILE = '<script>alert("x")</script> &amp; \u202eesrever <img src=x onerror=alert(1)> {{ 7 * 7 }} \ufffd'
SAMPLES = 4
QUESTIONS = 6


def said(rng: random.Random, gold: str) -> SampledResponse:
    """A response of a few tokens, right half of the time, without an answer sometimes."""
    tokens = [rng.randrange(2, 500) for _ in range(rng.randint(2, 9))] + [1]
    answer = rng.choice([gold, gold, "-7", None])
    verdict = Verdict.UNPARSABLE if answer is None else Verdict.CORRECT if answer == gold else Verdict.WRONG
    return SampledResponse(f"{HOSTILE} so {answer}", tokens, answer, verdict, 0.0, rng.random() < 0.9)


def questions(path: Path, count: int = QUESTIONS) -> Path:
    rows = [{"question": f"the sum of {i} and {i} is?", "answer": str(2 * i)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def arguments(models: dict[str, Path], data: str, out: Path, *more: str) -> list[str]:
    compare = [f"{name}={path}" for name, path in models.items()]
    keys = ["--data.input_key", "question", "--data.label_key", "answer", "--eval.n_samples", str(SAMPLES)]
    return ["--compare", *compare, "--data.dataset", data, *keys, "--ckpt.output_dir", str(out), *more]


class ScriptedPipeline:
    """In place of `pipeline.run`: finishes the rows that are not done, one of them as too long for the model."""

    def __init__(self) -> None:
        self.calls: list[dict[str, int]] = []  # rows of each data set/checkpoint
        self.interrupt_after: int | None = None  # calls
        self.killed_after: int | None = None  # rows of a call
        self.samples = SAMPLES
        self.short: set[str] = set()  # checkpoints for which every prompt is too long

    def __call__(
        self,
        source: Location,
        outcomes: Outcomes,
        factory: Any,
        pool: Any,
        report: Any,
        total: int,
        engine_log: Location,
    ) -> list[Failure]:
        if self.interrupt_after is not None and len(self.calls) >= self.interrupt_after:
            raise KeyboardInterrupt
        asked = list(source.rows())
        joint = [JointId.read(row[ID]) for row in asked]
        names = [f"{own.key.rpartition('-')[0]}/{own.checkpoint}" for own in joint]
        self.calls.append(dict(Counter(names)))
        assert total == len(asked)
        rng = {name: random.Random(name) for name in names}
        rows = []
        for row, own, name in zip(asked, joint, names, strict=True):
            payload = {
                "greedy": to_payload(said(rng[name], row["_gold"])),
                "samples": [to_payload(said(rng[name], row["_gold"])) for _ in range(self.samples)],
            }
            status = TOO_LONG if own.number == 3 or own.checkpoint in self.short else EVALUATED
            rows.append({ID: row[ID], NUMBER: row[NUMBER], STATUS: status, PAYLOAD: json.dumps(payload)})
        outcomes.data.make_dir()
        for start in range(0, len(rows), 4):
            part = pa.Table.from_pylist(rows[start : start + 4])
            pq.write_table(part, f"{outcomes.data.path}/{len(self.calls)}_{start}-0.parquet")
            if self.killed_after is not None and start >= self.killed_after:
                raise KeyboardInterrupt
        return []


class Page(html.parser.HTMLParser):
    """What a browser would load, and the tags and texts that it would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        assert not [name for name, _ in attrs if name.startswith("on")], "a handler"

    def handle_data(self, data: str) -> None:
        self.text.append(data)
