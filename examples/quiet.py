"""Runs a command, writes all of its output to a log, and shows what a person would look for.

    python examples/quiet.py --log runs/quickstart/quickstart.log -- deepspeed --module openrlhf_cft.cli.train_sft ...

It shows the lines of this package's own commands, without those that a later line repeats. Of a training it shows a
step every half minute and the last one, and of GRPO each step in short. If the command fails, it shows the end of the
output. The exit code is the command's, as a shell gives it.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

from openrlhf_cft.display import visible

OWN = r"(annotate|evaluate|train_sft|masks|view|doctor|model|questions)( \S+)*?: |hint: |engines are starting"
SUMMARY = "(rows read|  annotated|  wrong|  cut off)"  # the report has the rest
SHOWN = re.compile(rf"{OWN}|{SUMMARY} +[\d.]+%?( +\(|$)")
# Of our own lines: how the engine is set up, what annotation has shown of the same prompts, a rate that is unknown,
# what the report says.
HIDDEN = re.compile(r"annotate: engine |evaluate .*: (the first prompt|a response ends)|.*, ETA \?$|view: \d+ resp")
STEP = re.compile(r"step \d+/\d+ ")  # of a training on critical tokens
BAR = re.compile(r"Train step of epoch \d+: .*loss=")  # of one without, from the bar that stock OpenRLHF shows
GRPO = re.compile(r"Global step (\d+): \{")  # of reinforcement learning, with all of the step's figures behind it
FIGURES = {
    "rollout/reward_mean": "reward {:.3f}",
    "entropy_loss": "entropy {:.2f}",
    "rollout/response_length_mean": "{:.0f} tokens a response",
    "rollout/truncated_rate": "{:.0%} cut off",
    "timing/step_total": "{:.0f} s",
}
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+ ")  # before what this package logs
CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # moves the cursor
STEP_SECONDS = 30.0
LAST_LINES = 30  # of a command that fails
AFTERWARDS_SECONDS = 10.0  # for the rest of its output once a command has ended


class Filter:
    """Decides line by line."""

    def __init__(self) -> None:
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self.step = ""  # the last one that was not shown
        self._known: set[str] = set()  # those that were shown
        self._bars = True  # whether nothing better than the bar was seen
        self._stepped: float | None = None  # when a step was last shown, or the first one came

    def shown(self, line: str) -> list[str]:
        """What is to be shown of a line, and of those before it."""
        line = visible(STAMP.sub("", CONTROL.sub("", line), count=1).rstrip())
        if line:
            self.last.append(line)
        if GRPO.search(line):
            return [grpo_step(line)]
        self._bars = self._bars and not STEP.match(line)
        if STEP.match(line) or (self._bars and BAR.match(line)):
            now = time.monotonic()
            self._stepped = now if self._stepped is None else self._stepped
            if now - self._stepped < STEP_SECONDS:
                self.step = line
                return []
            self._stepped, self.step = now, ""
            return [line]
        if not SHOWN.match(line) or HIDDEN.match(line) or line in self._known:
            return []
        self._known.add(line)
        return [*self.rest(), line]

    def rest(self) -> list[str]:
        """A step that is still to be shown, since none followed."""
        found, self.step = [self.step] if self.step else [], ""
        return found


def grpo_step(line: str) -> str:
    """One step of OpenRLHF's GRPO in short: `step 3: reward 0.083, entropy 1.94, 37 tokens a response ...`."""
    number = GRPO.findall(line)[0]
    found = {name: re.search(rf"'{name}': (-?[\d.]+(?:e-?\d+)?)[,}}]", line) for name in FIGURES}
    shown = [form.format(float(value[1])) for name, form in FIGURES.items() if (value := found[name])]
    return f"step {number}: {', '.join(shown)}"


def run(command: list[str], log: Path) -> int:
    """Run the command; its exit code."""
    kept = Filter()
    # Into a pipe, Python would write its output in blocks: late, and after the error that ends it.
    environment = {"PYTHONUNBUFFERED": "1", **os.environ}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's, which says how it ended
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: process.send_signal(number))

    def read() -> None:
        assert process.stdout is not None
        with open(log, "a", encoding="utf-8") as file:
            for line in process.stdout:
                file.write(line)
                file.flush()
                for shown in kept.shown(line.rstrip("\n")):
                    print(shown, flush=True)

    # In a thread of its own: a process that the command left in the background may hold the pipe for hours.
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    code = process.wait()
    reader.join(AFTERWARDS_SECONDS)
    for shown in kept.rest():
        print(shown, flush=True)
    if code:
        print("\n".join(kept.last), file=sys.stderr)
        print(f"{Path(command[0]).name} ended with {code}; all of its output is in {log}", file=sys.stderr)
    return code if code >= 0 else 128 - code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    return run(command, args.log)


if __name__ == "__main__":
    sys.exit(main())
