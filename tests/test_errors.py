"""What ends a command with a sentence, and what keeps its traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NoReturn

import pyarrow as pa
import pytest

from openrlhf_cft.cli.flags import run_command
from openrlhf_cft.errors import InputError, JobError


def ended(capsys: pytest.CaptureFixture[str], command: Callable[[], int]) -> tuple[object, str]:
    """The exit code of a command, and what it said."""
    with pytest.raises(SystemExit) as raised:
        run_command("masks", command)
    return raised.value.code, capsys.readouterr().err


def raiser(error: BaseException) -> Callable[[], int]:
    def command() -> NoReturn:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("--rows: 0 must be at least 1"), 2, "masks: --rows: 0 must be at least 1\n"),
        (JobError("no engine is left"), 1, "masks: no engine is left; finished rows are kept; "),
        (OSError(28, "No space left on device", "masks.parquet"), 1, "masks: [Errno 28] No space left on device"),
        (KeyboardInterrupt(), 130, "masks: interrupted; "),
    ],
)
def test_a_sentence(capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str) -> None:
    found = ended(capsys, raiser(error))
    assert found[0] == code and found[1].startswith(said) and "Traceback" not in found[1]


def cut_json() -> int:
    return len(json.loads("{"))


def lists_of_two_lengths() -> int:
    return len(list(zip([1], [1, 2], strict=True)))


@pytest.mark.parametrize(
    "command", [cut_json, lists_of_two_lengths, raiser(pa.ArrowInvalid("x")), raiser(KeyError("x"))]
)
def test_a_fault_of_ours_is_no_bad_input(capsys: pytest.CaptureFixture[str], command: Callable[[], int]) -> None:
    """json, zip and pyarrow raise kinds of ValueError, too."""
    code, said = ended(capsys, command)
    assert code == 1 and "Traceback (most recent call last)" in said
    assert said.endswith("masks: this is a bug in openrlhf_cft, please report it with the lines above\n")
