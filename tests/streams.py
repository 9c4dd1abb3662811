"""Runs the tests in two streams at once, and ends with what failed, what was skipped and the totals of both.

    python tests/streams.py --logs .venv -- tests/train tests/whole

The files or folders named are the heavy stream, shown as it runs; all others are the light stream, whose output
follows. Each is a pytest process over tests without the mark `all`. Exit status 1 where one of them failed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

OUTCOMES = ("passed", "failed", "error", "errors", "skipped", "xfailed", "xpassed")


@dataclass(frozen=True)
class Stream:
    """One pytest process that has ended."""

    name: str
    status: int  # its exit status
    seconds: float
    lines: list[str]  # what it printed

    @property
    def counts(self) -> Counter[str]:
        """Tests by outcome, from pytest's last line."""
        last = next((line for line in reversed(self.lines) if re.search(r"\d+ \w+.* in [\d.]+s", line)), "")
        found = Counter({name: int(number) for number, name in re.findall(r"(\d+) (\w+)", last) if name in OUTCOMES})
        found["error"] += found.pop("errors", 0)
        return found

    def starting(self, *words: str) -> list[str]:
        """The lines of pytest's short summary that begin with one of these words."""
        begin = max(
            (i for i, line in enumerate(self.lines) if "short test summary info" in line), default=len(self.lines)
        )
        return [line for line in self.lines[begin:] if line.startswith(words)]

    def summary(self) -> list[str]:
        """What became of it: one line, and one for each test that failed."""
        counts = ", ".join(f"{number} {name}" for name, number in self.counts.items() if number)
        ended = "" if self.status in (0, 1) else f"; pytest ended with exit status {self.status}"
        line = f"{self.name} stream: {counts or 'no result'} in {self.seconds:.0f} s{ended}"
        return [line, *(f"  {failure}" for failure in self.starting("FAILED ", "ERROR "))]


def run(heavy: list[str], logs: Path) -> list[Stream]:
    """Run both streams to their ends; the output of the heavy one is passed on as it comes."""
    pytest = [sys.executable, "-m", "pytest", "--color=no", "-m", "not all", "--durations=40", "--durations-min=3"]
    began = time.monotonic()
    light_log = logs / "test-light.log"
    with light_log.open("w") as file:
        light = subprocess.Popen(
            [*pytest, *(f"--ignore={name}" for name in heavy)], stdout=file, stderr=subprocess.STDOUT
        )
    try:
        streams = [watched([*pytest, *heavy], logs / "test-heavy.log")]
        status = light.wait()
    finally:
        light.kill()
        light.wait()
    text = light_log.read_text(errors="replace")
    print(f"test: the light stream\n{text}", flush=True)
    return [Stream("light", status, time.monotonic() - began, text.splitlines()), *streams]


def watched(command: list[str], log: Path) -> Stream:
    """Run the heavy stream, and pass on and keep what it prints."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    try:
        with log.open("wb") as file:
            while part := os.read(process.stdout.fileno(), 1 << 16):  # as it comes: a dot is a test
                file.write(part)
                sys.stdout.buffer.write(part)
                sys.stdout.flush()
    except BaseException:
        process.kill()
        raise
    finally:
        status = process.wait()
    return Stream("heavy", status, time.monotonic() - began, log.read_text(errors="replace").splitlines())


def report(streams: list[Stream]) -> list[str]:
    """The last lines: each stream with what failed in it, what was not tested and why, and the totals."""
    lines = [f"test: {line}" for stream in streams for line in stream.summary()]
    reasons: Counter[str] = Counter()
    for line in (line for stream in streams for line in stream.starting("SKIPPED ")):
        found = re.match(r"SKIPPED \[(\d+)\] (?:\S+:\d+: )?(.*)", line)
        assert found is not None, line
        reasons[found[2]] += int(found[1])
    lines += [f"test: not tested ({number} tests): {reason}" for reason, number in reasons.items()]
    total: Counter[str] = sum((stream.counts for stream in streams), Counter())
    failed = sum(stream.counts["failed"] + stream.counts["error"] or int(stream.status != 0) for stream in streams)
    return [*lines, f"{total['passed']} passed, {failed} failed, {total['skipped']} skipped"]


def main() -> int:
    """Run the streams, print the report, and return the exit status."""
    parser = argparse.ArgumentParser(description="Run the tests in two streams at once.")
    parser.add_argument("--logs", type=Path, required=True, help="folder for the logs of both streams")
    parser.add_argument("heavy", nargs="+", help="test files or folders of the heavy stream")
    args = parser.parse_args()
    streams = run(args.heavy, args.logs)
    print("\n".join(report(streams)), flush=True)
    return int(any(stream.status for stream in streams))


if __name__ == "__main__":
    sys.exit(main())
