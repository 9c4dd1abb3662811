"""The steps that make what is trained on: questions, annotated responses, a mask for every arm, more SFT data."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from arms import ANNOTATED, HELD_OUT, REJECTION, column
from common import DATA_FLAGS, EXAMPLES, MODEL, Settings, evaluate, module, responses

from openrlhf_cft.data.records import ALTERNATIVES, RESPONSE_IDS, Verdict, read_rows

PART = "annotated-{}.parquet"  # of the annotation


def questions(study: Settings) -> dict[str, Any]:
    """Their number and fingerprint: the same on every machine."""
    files = {name: study.questions(name) for name in ("train", "validation", "test")}
    hashes = {name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for name, file in files.items()}
    return {"questions": {name: getattr(study, name) for name in files}, "sha256": hashes, "mix": study.mix}


def base(study: Settings) -> dict[str, Any]:
    """The model before training, on the validation questions: is the mix neither too easy nor too hard?"""
    return evaluate(study, "base-validation", study.base(), "validation", 4)


def annotate(study: Settings, part: int) -> dict[str, Any]:
    """A part of the training questions. It is kept until all of them are one data set."""
    found = annotate_file(study, training_part(study, part), f"annotated-{part}")
    keep(study, study.run_dir / f"annotated-{part}", PART.format(part))
    return found


def training_part(study: Settings, part: int) -> Path:
    """The file of a part of the training questions."""
    rows = study.questions("train").read_text().splitlines(keepends=True)
    file = study.run_dir / "questions" / f"train-{part}.jsonl"
    file.write_text("".join(rows[part :: study.parts]))
    return file


def keep(study: Settings, data: Path, name: str) -> None:
    """Copy an annotated data set to the results, as one file of that name: whole or absent. What its metadata say of
    places is relative to the project: it goes into the repository."""
    (file,) = data.glob("*.parquet")
    table, root = pq.read_table(file), f"{EXAMPLES.resolve().parent}/".encode()
    metadata = {key: value.replace(root, b"") for key, value in table.schema.metadata.items()}
    partial = study.results / f"{name}.partial"
    pq.write_table(table.replace_schema_metadata(metadata), partial, compression="zstd")
    partial.replace(study.results / name)


def annotate_file(study: Settings, file: Path, name: str, *more: object) -> dict[str, Any]:
    """Annotate questions, with more flags of `annotate`; what it found, and what it cost."""
    out = study.run_dir / name
    flags = [
        *MODEL,
        study.base(),
        "--data.dataset",
        file,
        *DATA_FLAGS,
        *study.prompts,
        "--vllm.num_engines",
        study.gpus,
    ]
    module(study, name, "annotate", *flags, "--annotate.max_new_tokens", study.length, "--ckpt.output_dir", out, *more)
    summary = json.loads((out / ".annotate" / "summary.json").read_text())
    rolled = sum(
        tried["rollout_length"]
        for row in read_rows(out, [ALTERNATIVES])
        for position in row[ALTERNATIVES]
        for tried in position
    )
    return {**{key: value for key, value in summary.items() if key != "config"}, "rollout_tokens": rolled}


def held_out(study: Settings, name: str = "validation") -> dict[str, Any]:
    """Annotated responses to validation questions, with the column of every arm: the loss on critical and on other
    tokens is taken there."""
    found = annotate_file(study, study.questions(name), "held-out")
    derive(study, study.run_dir / "held-out", HELD_OUT, columns_of=ANNOTATED)
    return found


def masks(study: Settings) -> dict[str, Any]:
    """All parts as one data set, with the column of every arm. It is kept, so that all arms train on the same."""
    merged = study.run_dir / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    module(study, "merge", "masks", "merge", *parts_of(study), "--out", merged)
    derive(study, merged, ANNOTATED)
    return shares(study, ANNOTATED)


def shares(study: Settings, name: str) -> dict[str, Any]:
    """Rows and tokens of a data set among the results; for each arm that trains on it, the mean weight of a token."""
    rows = list(read_rows(study.results / name))
    tokens = sum(len(row[RESPONSE_IDS]) for row in rows)
    weights = {arm.name: column(arm) for arm in study.arms if arm.data == name}
    share = {arm: sum(sum(row[made]) for row in rows) / tokens for arm, made in weights.items() if made}
    return {"rows": len(rows), "tokens": tokens, "share": share}


def parts_of(study: Settings) -> list[Path]:
    """What the steps of the annotation have made."""
    return [study.results / PART.format(part) for part in range(study.parts)]


def derive(study: Settings, annotated: Path, name: str, columns_of: str | None = None) -> None:
    """The columns of the arms that train on it (or on `columns_of`), into the file of that name among the results."""
    out = study.run_dir / f"derived-{Path(name).stem}"
    shutil.rmtree(out, ignore_errors=True)
    made = [arm for arm in study.arms if arm.how and arm.data == (columns_of or name)]
    flags = ["--column", *(column(arm) for arm in made), "--how", *(arm.how for arm in made)]
    module(study, out.name, "masks", "derive", annotated, *flags, *MODEL, study.base(), "--out", out)
    keep(study, out, name)


def kinds(study: Settings) -> dict[str, Any]:
    """Which tokens are critical: by kind and by place. The parts are in the whole now."""
    for part in parts_of(study):
        part.unlink(missing_ok=True)
    out = study.run_dir / "stats.json"
    module(study, "kinds", "masks", "stats", study.results / ANNOTATED, *MODEL, study.base(), "--out", out)
    return {name: value for name, value in json.loads(out.read_text()).items() if name != "data"}  # a path


def rejection(study: Settings) -> dict[str, Any]:
    """More SFT data for what the counterfactuals cost: samples of the training questions, until as many tokens are
    decoded. The greedy responses, which both need, are free; correct samples that are others join them."""
    greedy = {row["id"]: row for row in read_rows(study.results / ANNOTATED)}
    length = study.result("base-validation")["figures"]["sampled_length"]
    budget = sum(study.result(f"annotate-{part}")["rollout_tokens"] for part in range(study.parts))
    drawn = math.ceil(1.1 * budget / study.train / length)
    evaluate(study, "rejection", study.base(), "train", drawn, "--eval.entropy_positions", 0)
    sampled = [row for row in responses(study, "rejection", "train") if not row["greedy"]]
    asked = {row["id"]: row for row in map(json.loads, study.questions("train").open())}
    correct, spent = within_budget(sampled, budget)
    kept = {(row_id, row["response"]) for row_id, row in greedy.items()}
    kept |= {(row["id"], row["response"]) for row in correct}
    rows = [{**asked[row_id], "response": response} for row_id, response in sorted(kept)]
    pq.write_table(pa.Table.from_pylist(rows), study.results / REJECTION, compression="zstd")
    return {"budget": budget, "decoded_tokens": spent, "samples": drawn, "rows": len(rows), "greedy": len(greedy)}


def within_budget(sampled: list[dict[str, Any]], budget: int) -> tuple[list[dict[str, Any]], int]:
    """The correct ones of the samples whose tokens the budget pays for, and how many tokens these are."""
    correct, spent = [], 0
    for row in sorted(sampled, key=lambda row: (row["number"], row["id"])):
        if spent >= budget:
            break
        spent += row["length"]
        if row["verdict"] == Verdict.CORRECT and row["stopped"]:
            correct.append(row)
    return correct, spent
