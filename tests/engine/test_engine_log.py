"""The error that explains why an engine failed, from logs as vLLM 0.29 writes them (shortened)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from openrlhf_cft.engine.engine_log import MAX_BYTES, cause

# libnuma is missing: the compiled part does not load, which is a warning; its first use fails in a worker; the core
# then says that a worker failed.
WITHOUT_A_LIBRARY = """
WARNING 11-27 20:05:08 [cpu.py:580] Failed to import from vllm._C_AVX2: ImportError('libnuma.so.1: cannot open shared object file: No such file or directory')
ERROR 11-27 20:05:11 [multiproc_executor.py:944] WorkerProc failed to start.
ERROR 11-27 20:05:11 [multiproc_executor.py:944] Traceback (most recent call last):
ERROR 11-27 20:05:11 [multiproc_executor.py:944]   File "vllm/v1/worker/cpu_worker.py", line 71, in __init__
ERROR 11-27 20:05:11 [multiproc_executor.py:944]     torch.ops._C.init_cpu_memory_env([memory_node])
ERROR 11-27 20:05:11 [multiproc_executor.py:944] AttributeError: '_OpNamespace' '_C' object has no attribute 'init_cpu_memory_env'
(EngineCore pid=27735) ERROR 11-27 20:05:15 [core.py:1374] EngineCore failed to start.
(EngineCore pid=27735) ERROR 11-27 20:05:15 [core.py:1374] Traceback (most recent call last):
(EngineCore pid=27735) ERROR 11-27 20:05:15 [core.py:1374]     raise e from None
(EngineCore pid=27735) ERROR 11-27 20:05:15 [core.py:1374] Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
"""  # noqa: E501

# Two processes write at once; the first exception of all is the cause. Names have dots.
INTERLEAVED = """
(EngineCore_DP0 pid=11) ERROR 11-27 20:05:15 [core.py:1374] Traceback (most recent call last):
(Worker_TP1 pid=12) ERROR 11-27 20:05:15 [multiproc_executor.py:944] Traceback (most recent call last):
(EngineCore_DP0 pid=11) ERROR 11-27 20:05:15 [core.py:1374]   File "vllm/v1/engine/core.py", line 1336
(Worker_TP1 pid=12) ERROR 11-27 20:05:15 [multiproc_executor.py:944]     self.weight = torch.empty(size)
(Worker_TP1 pid=12) ERROR 11-27 20:05:15 [multiproc_executor.py:944] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
(EngineCore_DP0 pid=11) ERROR 11-27 20:05:15 [core.py:1374] Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
"""  # noqa: E501

# No line is logged: the process ends with an exception that nobody caught. A warning's traceback is no cause.
UNCAUGHT = """
WARNING 11-27 20:05:08 [utils.py:12] Traceback (most recent call last):
WARNING 11-27 20:05:08 [utils.py:12] ModuleNotFoundError: No module named 'something_optional'
(EngineCore pid=5344) Process EngineCore:
(EngineCore pid=5344) Traceback (most recent call last):
(EngineCore pid=5344)   File "/usr/lib/python3.13/subprocess.py", line 577, in run
(EngineCore pid=5344)     raise CalledProcessError(retcode, process.args,
(EngineCore pid=5344) subprocess.CalledProcessError: Command 'lscpu --json' returned non-zero exit status 1.
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (WITHOUT_A_LIBRARY, "vllm._C_AVX2: libnuma.so.1: cannot open shared object file: No such file or directory"),
        (INTERLEAVED, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."),
        (UNCAUGHT, "subprocess.CalledProcessError: Command 'lscpu --json' returned non-zero exit status 1."),
        ("INFO 11-27 20:05:15 [core.py:1] all is well\n", None),
        ("", None),
    ],
    ids=["library", "interleaved", "uncaught", "no error", "empty"],
)
def test_the_cause_is_the_first_error_that_is_no_consequence(text: str, found: str | None) -> None:
    assert cause(text) == found


def test_an_operator_that_is_missing_for_no_known_reason() -> None:
    text = WITHOUT_A_LIBRARY.replace("Failed to import", "Imported")
    assert cause(text) == "AttributeError: '_OpNamespace' '_C' object has no attribute 'init_cpu_memory_env'"


SCRIPT = """
import os, subprocess, sys
from openrlhf_cft.engine.engine_log import EngineLog
print("before", flush=True)
log = EngineLog()
subprocess.run([sys.executable, "-c", sys.argv[1]])
sys.stdout = open(sys.argv[2], "w")
print(log.cause(RuntimeError(sys.argv[3])), log.text().count("before"), len(log.text()), sep="\\n")
"""
WRITES = f"import sys; print({UNCAUGHT!r}, file=sys.stderr); print({INTERLEAVED!r})"


def run(tmp_path: Path, child: str, arrived: str, to_files: bool = True) -> list[str]:
    """Cause, mentions of what was written before, and length, as a process sees them whose child has written."""
    answer = tmp_path / "answer.txt"
    command = [sys.executable, "-c", SCRIPT, child, str(answer), arrived]
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        streams = {"stdout": out, "stderr": err} if to_files else {"capture_output": True}
        subprocess.run(command, check=True, **streams)  # type: ignore[call-overload]
    return answer.read_text().splitlines()


def test_both_outputs_of_the_processes_are_read_from_where_the_engine_began(tmp_path: Path) -> None:
    found, before, _ = run(tmp_path, WRITES, "Engine core initialization failed. See root cause above.")
    assert found.startswith("torch.OutOfMemoryError"), "the standard output comes first"
    assert before == "0"
    assert run(tmp_path, f"print('x' * {2 * MAX_BYTES})", "")[2] == str(MAX_BYTES), "a log that never ends is cut"
    deletes = "import os; os.unlink(os.readlink('/proc/self/fd/1'))"
    assert run(tmp_path, deletes, "it ended")[0] == "RuntimeError: it ended", "a log that is gone hides no error"


@pytest.mark.parametrize(
    ("arrived", "found"),
    [
        (
            "Failed core proc(s): {'EngineCore_DP0': -9}",
            "its process was killed by signal 9, often for lack of memory",
        ),
        ("1 validation error for ModelConfig\n  Value error, too long", "RuntimeError: 1 validation error for Model"),
    ],
)
def test_without_a_word_of_the_processes_it_is_what_arrived(tmp_path: Path, arrived: str, found: str) -> None:
    for to_files in (True, False):
        said = run(tmp_path, "", arrived, to_files)
        assert said[0].startswith(found) and len(said) == 3, "one line"
