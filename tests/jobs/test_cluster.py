"""`ray job submit` of the real command to a real Ray cluster of two nodes, one of which is killed while it works."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest
from test_end_to_end import FLAGS, model

from openrlhf_cft.data.records import MASK, RESPONSE_IDS, read_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
__all__ = ["model"]
SUMS = [(first, second) for first in range(1, 15) for second in range(1, 17)]
# No row is judged before the script has seen both engines: on a busy machine, one would have done all of them before
# the other has started.
VERIFIER = """
import os, time
from openrlhf_cft.verify.math import judge_math

def reward_func(queries, prompts, labels):
    response = queries[0][len(prompts[0]):]
    while response and not os.path.exists({go!r}):
        time.sleep(0.1)
    return [judge_math(response, labels[0]).score]
"""
SCRIPT = Path(__file__).parents[1] / "support" / "cluster_script.py"
# Its ports and its shared memory are its own then, and nothing outlives it.
NAMESPACE = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
SETUP = 'ip link set lo up && mount -t tmpfs tmpfs /dev/shm && exec "$@"'


def end_session(leader: int) -> None:
    """Kill all of a session, Ray's daemons too, which outlive their script where there is no namespace."""
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if os.getsid(process.pid) == leader:
                os.kill(process.pid, signal.SIGKILL)


def in_namespace(command: list[str]) -> str:
    """The output of a command that has to succeed, in a namespace of its own where that is possible."""
    possible = shutil.which("ip") and subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0
    wrapped = [*NAMESPACE, "bash", "-c", SETUP, "bash", *command] if possible else command
    process = subprocess.Popen(
        wrapped, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output = process.communicate(timeout=2300)[0]
    finally:
        end_session(process.pid)
    assert process.returncode == 0, f"{output.splitlines()[-1:]}\n{output}"  # a summary shows the first line
    return output


def test_a_node_is_killed_and_nothing_is_lost(model: Path, tmp_path: Path) -> None:
    questions, out = tmp_path / "questions.jsonl", tmp_path / "out"
    rows = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "openrlhf_cft.cli.annotate", "--model.model_name_or_path", str(model), *FLAGS]
    command += ["--data.dataset", str(questions), "--vllm.num_engines", "2", "--vllm.rows_in_flight", "16"]
    command += ["--annotate.max_new_tokens", "16", "--ckpt.output_dir", f"file://{out}"]
    verifier, go = tmp_path / "verifier.py", tmp_path / "go"
    verifier.write_text(VERIFIER.format(go=str(go)))
    command += ["--annotate.verifier", str(verifier), "--annotate.verifier_time_limit", "2000"]
    output = in_namespace([sys.executable, str(SCRIPT), str(out), str(go), *command])
    print(output)
    seen = json.loads(output.splitlines()[-1])
    assert seen["code"] == 0
    assert seen["ray_openrlhf_cft_engines"] == 2 and seen["ray_openrlhf_cft_rows"] >= 0
    assert 0 < 16 * seen["checkpoints"] < len(SUMS), "killed too late to show anything"
    assert seen["engines_killed"] == 1, "a node without an engine"
    summary = json.loads((out / ".annotate" / "summary.json").read_text())
    assert summary["rows_read"] == len(SUMS) and summary["failed"] == 0
    done = Counter(row["id"] for row in read_rows(out / ".annotate" / "outcomes", ["id"]))
    assert done == Counter({str(number): 1 for number in range(len(SUMS))})
    annotated = list(read_rows(out))
    assert len(annotated) == summary["annotated"] > 0
    assert all(len(row[MASK]) == len(row[RESPONSE_IDS]) > 0 for row in annotated)
