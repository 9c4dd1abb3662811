"""What all steps of the study use: its settings, the project's own commands, and how a checkpoint is evaluated."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from arms import ARMS, Arm

from openrlhf_cft.data.records import Verdict, read_rows
from openrlhf_cft.engine.platform import environment

EXAMPLES = Path(__file__).parents[1]
DATA_FLAGS = ["--data.input_key", "question", "--data.label_key", "answer"]
MODEL = ["--model.model_name_or_path"]
CHECKPOINT = "checkpoint"  # its name in an evaluation
# On a CPU a compiled engine takes half a minute more to start, and draws 650 tokens a second instead of 350.
COMPILED = ["--vllm.engine_args", '{"enforce_eager": false}']


@dataclass(frozen=True)
class Settings:
    """Sizes and places; see the flags of `study.py`."""

    run_dir: Path
    results: Path
    model: str | None
    train: int
    validation: int
    test: int
    mix: str
    length: int
    samples: int
    rates: list[float]
    many_seeds: int
    few_seeds: int
    rl_seeds: int
    rl_steps: int
    parts: int
    gpus: int
    train_flags: list[str] = field(default_factory=list)

    epochs: ClassVar[int] = 3
    micro_batch: ClassVar[int] = 16  # rows that go through the model at once

    @property
    def sizes(self) -> dict[str, Any]:
        """All that decides the results: not where they are, nor on what machine or for how long."""
        return {name: value for name, value in vars(self).items() if name not in ("run_dir", "results", "gpus")}

    @property
    def arms(self) -> Sequence[Arm]:
        """What is compared."""
        return ARMS

    @property
    def form(self) -> list[str]:
        """The flags that make a prompt of a question."""
        return ["--data.apply_chat_template"]

    @property
    def prompts(self) -> list[str]:
        """The same for annotation and evaluation."""
        return self.form

    def training_file(self, arm: Arm) -> Path:
        """What an arm trains on."""
        return self.results / arm.data

    def base(self) -> str:
        """The model that all begin with: made where it is missing."""
        if self.model:
            return self.model
        path = self.run_dir / "model"
        if not path.exists():
            shell(self, "model", sys.executable, EXAMPLES / "make_model.py", "--output_dir", path)
        return str(path)

    def questions(self, name: str) -> Path:
        """`train`, `validation` or `test`: made where it is missing, always the same."""
        path = self.run_dir / "questions" / f"{name}.jsonl"
        if not path.exists():
            sizes = ["--train", self.train, "--validation", self.validation, "--test", self.test, "--mix", self.mix]
            script = EXAMPLES / "make_questions.py"
            shell(self, "questions", sys.executable, script, "--output_dir", path.parent, *sizes)
        return path

    def result_file(self, name: str) -> Path:
        return self.results / f"{name}.json"

    def result(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self.result_file(name).read_text()))


@dataclass(frozen=True)
class Step:
    """One result file, and what makes it."""

    name: str
    make: Callable[[], dict[str, Any]]


def shell(study: Settings, name: str, *command: object, **variables: str) -> None:
    """Run a command, its output to `logs/NAME.log`, whose end is shown if it fails."""
    log = study.run_dir / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    settings = {**environment(), **os.environ, **variables}
    with log.open("w") as file:
        done = subprocess.run([str(word) for word in command], env=settings, stdout=file, stderr=file)
    if done.returncode:
        raise SystemExit(f"evidence: {name} failed, see {log}:\n{log.read_text()[-3000:]}")


def module(study: Settings, name: str, command: str, *flags: object, **variables: str) -> None:
    """Run one of the project's own commands."""
    shell(study, name, sys.executable, "-m", f"openrlhf_cft.cli.{command}", *flags, **variables)


def evaluate(study: Settings, name: str, checkpoint: object, data: str, drawn: int, *flags: object) -> dict[str, Any]:
    """Evaluate a checkpoint: see `evaluate_all`."""
    return evaluate_all(study, name, {CHECKPOINT: checkpoint}, data, drawn, *flags)[CHECKPOINT]


def evaluate_all(
    study: Settings, name: str, checkpoints: Mapping[str, object], data: str, drawn: int, *flags: object
) -> dict[str, dict[str, Any]]:
    """Evaluate checkpoints: their figures, and for paired tests which questions each answers and how often.

    Returns:
        By checkpoint: `figures`, and with `--eval.annotated` `annotated`, values by name; `greedy`, for each question
        1 where its greedy response is correct, else 0; `correct`, how many of its samples are.
    """
    out = study.run_dir / name
    shutil.rmtree(out, ignore_errors=True)
    command: list[object] = ["--compare", *(f"{key}={path}" for key, path in checkpoints.items())]
    command += ["--data.dataset", study.questions(data), *DATA_FLAGS, *study.prompts]
    command += ["--eval.n_samples", drawn, "--eval.max_new_tokens", study.length, "--vllm.num_engines", study.gpus]
    variables = {}
    if drawn:
        command, variables = [*command, *COMPILED], {"TORCH_COMPILE_DISABLE": "0"}
    module(study, f"{name}-evaluate", "evaluate", *command, *flags, "--ckpt.output_dir", out, **variables)
    metrics = json.loads((out / "metrics.json").read_text())
    return {key: kept(study, name, key, data, drawn, metrics) for key in checkpoints}


def kept(study: Settings, name: str, key: str, data: str, drawn: int, metrics: dict[str, Any]) -> dict[str, Any]:
    """What of a checkpoint's evaluation goes into the results."""
    found = metrics["results"][data][key]
    correct: dict[str, list[bool]] = {}  # of each question; that of the greedy response stands first
    for row in responses(study, name, data, key):
        correct.setdefault(row["id"], []).append(row["verdict"] == Verdict.CORRECT)
    result = {
        "samples": drawn,
        "figures": values(found["figures"]),
        "greedy": "".join(str(int(correct[row_id][0])) for row_id in sorted(correct)),
        "correct": [sum(correct[row_id][1:]) for row_id in sorted(correct)] if drawn else [],
        "entropy_by_position": [[part["first"], round(part["value"], 4)] for part in found["entropy_by_position"]],
    }
    if "annotated" in metrics:
        result["annotated"] = values(metrics["annotated"]["figures"][key])
    return result


def responses(study: Settings, name: str, data: str, key: str = CHECKPOINT) -> list[dict[str, Any]]:
    """Every response of a checkpoint's evaluation."""
    return list(read_rows(study.run_dir / name / "samples" / f"{data}--{key}.parquet"))


def values(figures: dict[str, Any]) -> dict[str, float]:
    """Without the intervals: over seeds they are others."""
    return {name: round(figure["value"], 5) for name, figure in figures.items()}
