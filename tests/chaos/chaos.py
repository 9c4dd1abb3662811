"""`make chaos`: an annotation that is killed all the time. The last line is JSON; exit code 1 where a bound is missed.

    python tests/chaos/chaos.py [--rows 240] [--kills 24] [--seed 0]

One command, `chaos_job.py`, is started again and again until it ends well. Meanwhile processes of it are killed with
SIGKILL, of each kind and at random times: engines, actors, verifiers, Ray's reading and writing tasks, the tally, the
driver, the raylet. Once the disk fills; once a data file and once a checkpoint is cut in half. The result is compared
with a literal loop over the same scripted model. Everything lives on a small disk of its own, in a mount namespace.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import psutil
from chaos_job import SEED, SETTINGS, prepare
from scripted import EOS, HashModel, decode, literal_greedy, literal_mask

from openrlhf_cft.data.records import MASK, RESPONSE_IDS, Verdict, read_rows
from openrlhf_cft.verify.math import judge_math

JOB = Path(__file__).with_name("chaos_job.py")
# The jobs that are killed, their engines and Ray's workers import from there too.
os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], *filter(None, [os.environ.get("PYTHONPATH")])])
ENGINES = 2
DISK_BYTES = 64 << 20
MAX_RESTARTS = 60
HANG_SECONDS = 900.0  # of a run that neither ends nor writes
# A kind of process, and what its command line has.
KINDS = {
    "engine": "chaos_engine.py",
    "actor": "ray::MapWorker",
    "verifier": "worker_process",
    "tally": "ray::Tally",
    "raylet": "Agent",  # the raylet ends with its agents, and the driver with the raylet
    "task": "ray::",  # reading, writing, or waiting to
    "driver": "chaos_job.py",
}
ENDS = ("raylet", "driver")  # end the run, so they are killed less often


def say(text: str) -> None:
    print(f"chaos: {text}", file=sys.stderr, flush=True)


class Chaos:
    """The command, its victims, and the count of what was done to it."""

    def __init__(self, directory: Path, kills: int, seed: int) -> None:
        self.directory, self.wanted = directory, kills
        self.random = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.restarts = -1
        self.full = False
        self.cut: Counter[str] = Counter()
        self.state = directory / "annotated" / ".annotate"

    def run(self) -> None:
        """Repeat the command until it ends well and everything was done to it."""
        while self.restarts < MAX_RESTARTS:
            self.restarts += 1
            self._cut("outcomes", 2)
            self._cut("checkpoint", 4)
            code, output = self._once()
            lines = [line for line in output.splitlines() if line.strip() and "core_worker" not in line]
            say(f"run {self.restarts} ended with {code} and {self._rows()} rows: {(lines or [''])[-1][:300]}")
            if code == 0:
                return
        raise SystemExit(f"chaos: not done after {MAX_RESTARTS} restarts")

    def _once(self) -> tuple[int, str]:
        """One run, to its end or its death."""
        with tempfile.TemporaryFile("w+") as log:
            command = [sys.executable, str(JOB), str(self.directory), str(ENGINES)]
            driver = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            seen, changed = -1, time.monotonic()
            while driver.poll() is None:
                time.sleep(self.random.uniform(0.2, 1.6))
                if (rows := self._rows()) != seen:
                    seen, changed = rows, time.monotonic()
                if time.monotonic() - changed > HANG_SECONDS:
                    os.killpg(driver.pid, signal.SIGKILL)
                    log.seek(0)
                    raise SystemExit(f"chaos: a run hangs:\n{log.read()[-5000:]}")
                if not self.full and self.restarts >= 3 and rows > 60:
                    self._fill(driver)
                elif sum(self.kills.values()) < self.wanted and rows > 0:
                    self._kill(driver)
            log.seek(0)
            return driver.wait(), log.read()

    def _rows(self) -> int:
        """About how many rows are done: sixteen a file, at most."""
        return 16 * len(list((self.state / "checkpoint").glob("*.parquet")))

    def _kill(self, driver: subprocess.Popen[bytes]) -> None:
        """Kill one process of a run that is at work: of the kind that was killed least so far."""
        found: dict[str, list[psutil.Process]] = {}
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(driver.pid)
            for process in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    line = " ".join(process.cmdline())
                    kind = next((kind for kind, mark in KINDS.items() if mark in line), None)
                    if kind is not None:
                        found.setdefault(kind, []).append(process)
        kinds = [kind for kind in found if kind not in ENDS or self.random.random() < 0.1]
        if "engine" in found and kinds:
            kind = min(kinds, key=lambda kind: (self.kills[kind], self.random.random()))
            with contextlib.suppress(psutil.Error):
                self.random.choice(found[kind]).send_signal(signal.SIGKILL)
                self.kills[kind] += 1

    def _fill(self, driver: subprocess.Popen[bytes]) -> None:
        """Fill the disk until the run has ended of it."""
        ballast = self.directory / "ballast"
        with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        say("the disk is full")
        driver.wait(timeout=HANG_SECONDS)
        ballast.unlink()
        self.full = True

    def _cut(self, name: str, after: int) -> None:
        """Cut a file in half, once, before the run of that number or a later one that finds a file."""
        files = [file for file in (self.state / name).glob("*.parquet") if "pending" not in file.name]
        if self.restarts >= after and not self.cut[name] and files:
            file = self.random.choice(sorted(files))
            os.truncate(file, file.stat().st_size // 2)
            self.cut[name] += 1


def expected(rows: list[dict[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    """Response and mask of every row that has one, by id; from the literal loop."""
    model, budget = HashModel(SEED), SETTINGS.max_new_tokens
    found = {}
    for row in rows:
        response = literal_greedy(model, row["digits"], budget)

        def correct(text: str, answer: str = row["answer"]) -> bool:
            return judge_math(text, answer).verdict is Verdict.CORRECT

        if response[-1] == EOS and correct(decode(response)):
            found[row["id"]] = literal_mask(model, row["digits"], SETTINGS.top_k, budget, correct)[:2]
    return found


def compare(directory: Path, rows: list[dict[str, Any]]) -> dict[str, int]:
    """What is wrong with the finished data set, and with the count of all rows."""
    summary = json.loads((directory / "annotated/.annotate/summary.json").read_text())
    written = list(read_rows(directory / "annotated"))
    times = Counter(row["id"] for row in written)
    right = expected(rows)
    return {
        "rows": summary["rows_read"],
        "annotated": len(written),
        "rows_lost": len(set(right) - set(times)) + summary["failed"],
        "rows_twice": sum(count - 1 for count in times.values()) + len(set(times) - set(right)),
        "masks_wrong": sum((row[RESPONSE_IDS], row[MASK]) != right.get(row["id"]) for row in written),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path, default=None, help="on the small disk; made by this script")
    own = parser.parse_args()
    if own.directory is None:
        return on_small_disk(sys.argv[1:])
    started = time.monotonic()
    rows = prepare(own.directory, own.rows)
    chaos = Chaos(own.directory, own.kills, own.seed)
    chaos.run()
    found: dict[str, Any] = {
        **compare(own.directory, rows),
        "kills": sum(chaos.kills.values()),
        "killed": dict(sorted(chaos.kills.items())),
        "restarts": chaos.restarts,
        "disk_full": int(chaos.full),
        "files_cut": dict(chaos.cut),
        "processes_left": len(psutil.wait_procs(engines_left(), timeout=300)[1]),
        "seconds": round(time.monotonic() - started),
    }
    print(json.dumps(found), flush=True)
    done = found["kills"] >= own.kills and chaos.full and len(chaos.cut) == 2
    wrong = ("rows_lost", "rows_twice", "masks_wrong", "processes_left")
    return 0 if done and not any(found[name] for name in wrong) else 1


def engines_left() -> list[psutil.Process]:
    """Engines of this or of any other chaos on this machine."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if KINDS["engine"] in " ".join(process.cmdline()):
                found.append(process)
    return found


def on_small_disk(arguments: list[str]) -> int:
    """This script again, with a directory on a file system of `DISK_BYTES` that nobody else sees."""
    directory = tempfile.mkdtemp(prefix="chaos.")
    mount = f"mount -t tmpfs -o size={DISK_BYTES} chaos {directory}"
    command = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", f'{mount} && exec "$@"', "bash"]
    try:
        return subprocess.run([*command, sys.executable, __file__, *arguments, "--directory", directory]).returncode
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
