"""Faults of the real engine that `test_end_to_end.py` does not have: Ctrl-C amid rollouts, a setting that is wrong."""

from __future__ import annotations

import glob
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
from test_end_to_end import FLAGS, model, name, questions, start
from test_faults import KEPT

pytestmark = [pytest.mark.all, pytest.mark.slow, pytest.mark.timeout(900)]
__all__ = ["model", "questions"]


def command(model: Path, questions: Path, out: Path) -> list[str]:
    data = ["--data.dataset", str(questions), *FLAGS, "--ckpt.output_dir", str(out)]
    return ["-m", "openrlhf_cft.cli.annotate", "--model.model_name_or_path", str(model), *data]


def test_ctrl_c_leaves_no_process_and_no_memory(model: Path, questions: Path, tmp_path: Path) -> None:
    before = set(glob.glob("/dev/shm/psm_*"))
    job = start(command(model, questions, tmp_path))
    progress = ""
    while not re.search(r" [1-9]\d*/48 rows", progress):
        assert job.stdout is not None
        progress = job.stdout.readline()
        assert progress, "the job ended"
    members = psutil.Process(job.pid).children(recursive=True)
    assert any("EngineCore" in name(process) for process in members)
    os.killpg(job.pid, signal.SIGINT)
    assert job.communicate(timeout=600)[0].endswith("annotate: interrupted; the same command goes on from here\n")
    assert job.returncode == 130
    assert not psutil.wait_procs(members, timeout=300)[1]
    guard = time.monotonic() + 300
    while set(glob.glob("/dev/shm/psm_*")) - before:
        assert time.monotonic() < guard, "shared memory is left"
        time.sleep(0.2)


def test_an_engine_that_does_not_start_says_why(model: Path, questions: Path, tmp_path: Path) -> None:
    blocks = ["--vllm.engine_args", '{"num_gpu_blocks_override": 1}']
    before = set(glob.glob("/dev/shm/psm_*"))
    job = start([*command(model, questions, tmp_path), *blocks])
    last = job.communicate(timeout=600)[0].splitlines()[-1]
    for leftover in set(glob.glob("/dev/shm/psm_*")) - before:  # vLLM's, of an engine that never was
        os.unlink(leftover)
    assert job.returncode == 1
    assert last.startswith("annotate: an engine does not start: ValueError: ") and last.endswith(KEPT)
    assert "cache blocks" in last
