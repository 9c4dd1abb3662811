"""Faults of the real engine that `test_end_to_end.py` does not have: Ctrl-C amid rollouts, a setting that is wrong."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from engine_processes import engines, line_of
from shared_memory import abandoned, buffers
from test_end_to_end import FLAGS, model, questions, start
from test_faults import KEPT

pytestmark = [pytest.mark.all, pytest.mark.slow, pytest.mark.timeout(900)]
__all__ = ["model", "questions"]


def command(model: Path, questions: Path, out: Path) -> list[str]:
    data = ["--data.dataset", str(questions), *FLAGS, "--ckpt.output_dir", str(out)]
    return ["-m", "openrlhf_cft.cli.annotate", "--model.model_name_or_path", str(model), *data]


def judging(members: list[psutil.Process]) -> bool:
    """Whether there is an engine that has given the verifier something to do."""
    return bool(engines(members)) and any("worker_process" in line_of(process) for process in members)


def test_ctrl_c_leaves_no_process_and_no_memory(model: Path, questions: Path, tmp_path: Path) -> None:
    before = buffers()
    job = start(command(model, questions, tmp_path))
    members: list[psutil.Process] = []
    while not judging(members):  # not by the rows that are done: a fast machine may have done all by the first line
        assert job.poll() is None, "the job ended"
        time.sleep(0.05)
        members = psutil.Process(job.pid).children(recursive=True)
    os.killpg(job.pid, signal.SIGINT)
    assert job.communicate(timeout=600)[0].endswith("annotate: interrupted; run the same command to resume\n")
    assert job.returncode == 130
    assert not psutil.wait_procs(members, timeout=300)[1]
    guard = time.monotonic() + 300
    while abandoned(before):
        assert time.monotonic() < guard, "shared memory is left"
        time.sleep(0.2)


def test_an_engine_that_does_not_start_says_why(model: Path, questions: Path, tmp_path: Path) -> None:
    blocks = ["--vllm.engine_args", '{"num_gpu_blocks_override": 1}']
    before = buffers()
    job = start([*command(model, questions, tmp_path), *blocks])
    last = job.communicate(timeout=600)[0].splitlines()[-1]
    for leftover in abandoned(before):  # vLLM's, of an engine that never was
        os.unlink(leftover)
    assert job.returncode == 1
    assert last.startswith("annotate: an engine does not start: ValueError: ") and last.endswith(KEPT)
    assert "cache blocks" in last
