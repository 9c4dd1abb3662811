"""Does all of it work on this machine? `make gpu-check`, on a new GPU first; `make gpu-check GPU=` on a CPU.

    python examples/gpu_check.py [--run_dir runs/gpu-check]

SmolLM2 goes through everything. Its masks in float32 are compared with those of a CPU. Then come the quickstart on few
questions, three steps of GRPO from its CFT checkpoint, and an annotation that is killed and resumes. In the end no
process may be left. Each step prints a line; the last line is JSON. All that a step printed is in RUN_DIR/STEP.log.
Exit code 1 where a step failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from openrlhf_cft.data.provenance import versions
from openrlhf_cft.data.records import MASK, RESPONSE_IDS, read_rows
from openrlhf_cft.doctor.fit import card_of, size_of, tokens_per_second
from openrlhf_cft.doctor.nvidia import gpus, query
from openrlhf_cft.engine.platform import uses_gpu

EXAMPLES = Path(__file__).resolve().parent
STORED = EXAMPLES.parent / "tests" / "whole" / "float32_masks.jsonl"  # `--store` wrote it, on a CPU
LENGTH = 48  # tokens of a response, at most
QUESTIONS, HELD_OUT = 64, 16
GRPO = {"PROMPTS": "4", "SAMPLES": "6", "MICRO": "12", "PROMPT_LENGTH": "96", "LENGTH": str(LENGTH), "SAVE": "10"}
STEPS = 3  # of GRPO
MARK = "OPENRLHF_CFT_CHECK"  # in the environment of everything that is started, by which what is left is found
LEAST_EQUAL = 0.95  # of responses, and of the tokens of equal ones: near ties fall otherwise on another processor
FIRST_ROWS_SECONDS = 1800.0  # for an engine to start and to do some rows, on a busy machine
LEAVING_SECONDS = 120.0  # for processes to end after their driver was killed
BATCH = 512  # of the roofline


class StepError(Exception):
    """A step did not do what it should; says what."""


class Check:
    """The steps, their logs and what they found."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.model = run_dir / "model"
        self.environment = {**os.environ, MARK: str(os.getpid())}
        self.found: dict[str, Any] = {}
        self.failed: list[str] = []

    def step(self, name: str, action: Callable[[Path], dict[str, Any]]) -> None:
        """Do one step and print what came of it."""
        began = time.monotonic()
        log = self.run_dir / f"{name}.log"
        try:
            found, said = action(log), "ok"
        except (StepError, OSError, ValueError, KeyError) as error:
            found, said = {}, f"FAILED: {error}"
            self.failed.append(name)
        seconds = round(time.monotonic() - began)
        self.found[name] = {"ok": said == "ok", "seconds": seconds, **found}
        shown = ", ".join(f"{key} {value}" for key, value in found.items())
        print(f"check: {name:8} {said} in {seconds} s{': ' if shown else ''}{shown}", flush=True)

    def run(self, log: Path, *command: str | Path, **variables: str) -> None:
        """A command, its output in the log.

        Raises:
            StepError: it ends with another code than 0; with the last line that it printed.
        """
        with open(log, "a") as file:
            done = subprocess.run(
                list(map(str, command)), stdout=file, stderr=subprocess.STDOUT, env={**self.environment, **variables}
            )
        if done.returncode:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            raise StepError(f"exit code {done.returncode}; {log} ends with: {lines[-1] if lines else ''}")

    def annotate(self, data: Path, out: Path, *flags: str) -> list[str]:
        """The command that annotates the questions of a file."""
        keys = ["--data.input_key", "question", "--data.label_key", "answer", "--data.apply_chat_template"]
        command = [sys.executable, "-m", "openrlhf_cft.cli.annotate", "--model.model_name_or_path", str(self.model)]
        command += ["--data.dataset", str(data), *keys, "--annotate.max_new_tokens", str(LENGTH), *flags]
        return [*command, "--ckpt.output_dir", str(out)]

    def prepare(self, log: Path) -> dict[str, Any]:
        """The model and questions."""
        self.run(log, sys.executable, EXAMPLES / "make_model.py", "--output_dir", self.model)
        sizes = ["--train", str(QUESTIONS), "--test", str(HELD_OUT)]
        self.run(
            log, sys.executable, EXAMPLES / "make_questions.py", "--output_dir", self.run_dir / "questions", *sizes
        )
        return {}

    def float32(self, log: Path) -> dict[str, Any]:
        """Masks in float32, which are those of any processor but for near ties."""
        stored = {row["id"]: row for row in map(json.loads, STORED.read_text().splitlines())}
        out = self.run_dir / "float32"
        self.run(log, *self.annotate(STORED, out, "--vllm.dtype", "float32"))
        rows = {row["id"]: row for row in read_rows(out)}
        same = [key for key, row in stored.items() if rows.get(key, {}).get(RESPONSE_IDS) == row[RESPONSE_IDS]]
        pairs = [pair for key in same for pair in zip(rows[key][MASK], stored[key][MASK], strict=True)]
        equal = sum(own == other for own, other in pairs)
        if len(same) < LEAST_EQUAL * len(stored) or equal < LEAST_EQUAL * len(pairs):
            raise StepError(
                f"{len(same)} of {len(stored)} responses and {equal} of {len(pairs)} weights are the CPU's"
            )
        return {"responses": f"{len(same)}/{len(stored)}", "weights": f"{equal}/{len(pairs)}"}

    def quickstart(self, log: Path) -> dict[str, Any]:
        """Annotate, train SFT and CFT, evaluate, view, report."""
        run, data = self.run_dir / "quickstart", self.run_dir / "questions"
        variables = {"RUN": run, "MODEL": self.model, "TRAIN": data / "train.jsonl", "TEST": data / "test.jsonl"}
        self.run(log, "bash", EXAMPLES / "quickstart.sh", **{name: str(value) for name, value in variables.items()})
        summary = json.loads((run / "annotated" / ".annotate" / "summary.json").read_text())
        found = {"annotated": summary["annotated"], "rollouts": summary["rollouts"]}
        found["tokens_per_second"] = round(
            summary["decoded_tokens"] / summary["seconds"]
        )  # the engine's start included
        return {**found, **self.roofline()}

    def roofline(self) -> dict[str, Any]:
        """What the card could decode at most, of a model for which the work around it takes longer."""
        name = gpus()[0][0] if uses_gpu() else ""
        card = card_of(name)
        if card is None:
            return {}
        return {"card": name, "roofline": round(tokens_per_second(size_of(str(self.model)), BATCH, LENGTH, 1, card))}

    def grpo(self, log: Path) -> dict[str, Any]:
        """Stock GRPO from the CFT checkpoint, the verifier its reward."""
        variables = {"MODEL": self.run_dir / "quickstart" / "cft", "DATA": self.run_dir / "questions" / "train.jsonl"}
        variables["OUT"] = self.run_dir / "grpo"
        questions = str(STEPS * int(GRPO["PROMPTS"]))
        script: list[str | Path] = ["bash", EXAMPLES / "train_grpo.sh", "--data.max_samples", questions]
        if uses_gpu() and importlib.util.find_spec("flash_attn") is None:
            variables["ATTENTION"] = Path("sdpa")
        self.run(log, *script, **GRPO, **{name: str(value) for name, value in variables.items()})
        if not (self.run_dir / "grpo" / "config.json").exists():
            raise StepError(f"no model in {self.run_dir / 'grpo'}")
        return {"steps": STEPS}

    def killed(self, log: Path) -> dict[str, Any]:
        """An annotation that is killed, leaves nothing behind, and goes on."""
        out = self.run_dir / "killed"
        command = self.annotate(self.run_dir / "questions" / "train.jsonl", out)
        with open(log, "a") as file:
            driver = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=self.environment, start_new_session=True
            )
        deadline = time.monotonic() + FIRST_ROWS_SECONDS
        while not list((out / ".annotate" / "outcomes").glob("*.parquet")):
            if driver.poll() is not None:
                raise StepError(f"it ended before it could be killed; see {log}")
            if time.monotonic() > deadline:
                driver.kill()
                raise StepError(f"no row is done after {FIRST_ROWS_SECONDS:.0f} s; see {log}")
            time.sleep(0.2)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        left = self.leftovers(LEAVING_SECONDS)
        if left:
            raise StepError(f"after a kill -9 of the driver there are still {', '.join(left)}")
        self.run(log, *command)
        summary = json.loads((out / ".annotate" / "summary.json").read_text())
        ids = [row["id"] for row in read_rows(out)]
        if (
            summary["rows_read"] != QUESTIONS
            or summary["failed"]
            or not summary["annotated"] == len(ids) == len(set(ids))
        ):
            raise StepError(f"{len(ids)} rows with {len(set(ids))} ids, and the summary says {summary}")
        return {"rows": len(ids)}

    def left(self, log: Path) -> dict[str, Any]:
        """What all steps together left behind."""
        left = self.leftovers(LEAVING_SECONDS)
        if left:
            raise StepError(f"there are still {', '.join(left)}")
        return {"memory_on_gpus": "; ".join(query("memory.used"))} if uses_gpu() else {}

    def leftovers(self, seconds: float) -> list[str]:
        """What was started here and has not ended within some seconds: a number and a command each."""
        deadline = time.monotonic() + seconds
        while True:
            left = [process for process in psutil.process_iter() if self._ours(process)]
            if not left or time.monotonic() > deadline:
                return [f"{process.pid} {process.name()}" for process in left if process.is_running()]
            time.sleep(0.5)

    def _ours(self, process: psutil.Process) -> bool:
        try:
            ended = process.status() == psutil.STATUS_ZOMBIE
            return not ended and process.environ().get(MARK) == self.environment[MARK] and process.pid != os.getpid()
        except psutil.Error:
            return False


def store(check: Check, log: Path) -> None:
    """Write the stored masks anew, on a CPU."""
    check.prepare(log)
    lines = (check.run_dir / "questions" / "train.jsonl").read_text().splitlines()[:24]
    questions = check.run_dir / "asked.jsonl"
    questions.write_text(
        "".join(json.dumps({"id": f"q{i}", **json.loads(line)}) + "\n" for i, line in enumerate(lines))
    )
    check.run(log, *check.annotate(questions, check.run_dir / "stored", "--vllm.dtype", "float32"))
    names = ("id", "question", "answer", RESPONSE_IDS, MASK)
    rows = [{name: row[name] for name in names} for row in read_rows(check.run_dir / "stored")]
    STORED.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{STORED.name}: {len(rows)} rows")


def emptied(folder: Path) -> Path:
    """A folder of this script without what an earlier check left: a check is of the machine as it is now.

    Raises:
        SystemExit: the folder has something else in it.
    """
    mark = folder / ".gpu-check"
    if folder.exists() and not mark.exists() and any(folder.iterdir()):
        raise SystemExit(f"gpu_check: --run_dir: {str(folder)!r} holds something else; give another folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.touch()
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run_dir", type=Path, default=Path("runs/gpu-check"))
    parser.add_argument("--store", action="store_true", help="make the masks anew that others are compared to")
    args = parser.parse_args()
    check = Check(emptied(args.run_dir.resolve()))
    if args.store:
        store(check, check.run_dir / "store.log")
        return
    for action in (check.prepare, check.float32, check.quickstart, check.grpo, check.killed, check.left):
        check.step(action.__name__, action)
    names = [name for name, _, _ in gpus()] if uses_gpu() else []
    print(json.dumps({"ok": not check.failed, "gpus": names, **check.found, "versions": versions()}))
    sys.exit(1 if check.failed else 0)


if __name__ == "__main__":
    main()
