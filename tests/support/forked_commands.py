"""Runs many commands fast: a process imports what they import once, and forks for each.

    with ForkedCommands(folder) as commands:
        ended = commands.run("openrlhf_cft.cli.masks", ["stats", "annotated"])

`python tests/support/forked_commands.py MODULE ...` is that process: it imports the modules, then reads a JSON line a
command. A command is run as `python -m` would, with everything that happens when a process ends. One that takes its
input to be good is stopped before Ray, an engine or a training starts.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

# In this order: DeepSpeed warns of compilers when others were there first.
IMPORTED = (
    "openrlhf_cft.train.stock",
    *(f"openrlhf_cft.cli.{name}" for name in ("annotate", "evaluate", "masks", "view")),
    *("transformers.models.auto", "transformers.models.qwen2", "transformers.tokenization_utils_tokenizers"),
    *("pandas", "pyarrow.parquet", "pyarrow.json", "jinja2.sandbox"),
)
STARTED = "the command took its input to be good, and would have started"


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str


class ForkedCommands:
    """The forking process, as its caller sees it."""

    def __init__(self, folder: Path, logs: Path, environment: dict[str, str]) -> None:
        """Start it; commands run in `folder`, and what they print is kept in `logs`."""
        self._folder, self._logs = folder, logs
        self._process = subprocess.Popen(
            [sys.executable, __file__, *IMPORTED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=folder,
            text=True,
        )

    def run(self, module: str, arguments: Sequence[str]) -> Ended:
        """Run one command to its end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {"module": module, "arguments": list(arguments), "logs": str(self._logs)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        stdout, stderr = ((self._logs / name).read_text(errors="replace") for name in ("stdout", "stderr"))
        return Ended(code, stdout, stderr)

    def __enter__(self) -> ForkedCommands:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def serve(modules: Sequence[str]) -> None:
    """Import, then fork for each line of standard input; answers with the exit code."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # a fork need not look through all that when it ends
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            answers.close()
            return command(request["module"], request["arguments"], Path(request["logs"]))
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        answers.flush()


def command(module: str, arguments: list[str], logs: Path) -> None:
    """Run a command in this process, which ends with it."""
    for name, number in (("/dev/null", 0), (logs / "stdout", 1), (logs / "stderr", 2)):
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    stop_before_work("--ray.address" in arguments)
    sys.argv[1:] = arguments
    sys.modules.pop(module, None)  # otherwise runpy warns
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def stop_before_work(joins: bool) -> None:
    """Let nothing start that bad input should have kept from starting; `joins`: a Ray that is running."""
    import openrlhf.utils

    from openrlhf_cft.jobs import cluster

    def stop(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError(STARTED)

    openrlhf.utils.get_strategy = stop
    if not joins:
        cluster.connect = stop


if __name__ == "__main__":
    serve(sys.argv[1:])
