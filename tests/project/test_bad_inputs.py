"""Whatever is wrong with the input, a command says it in one sentence with the value, and leaves nothing behind.

The list is `bad_inputs.tsv`; the files that it names are made by `tests/support/bad_inputs.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_inputs import Case, cases, make_files
from forked_commands import ForkedCommands
from train_helpers import environment

CASES = cases()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad_inputs")
    make_files(folder)
    return folder


@pytest.fixture(scope="module")
def commands(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedCommands]:
    logs = tmp_path_factory.mktemp("logs")
    (folder / "tmp").mkdir()
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    variables = {**environment(), **rank, "HF_DATASETS_CACHE": str(logs / "cache"), "TMPDIR": str(folder / "tmp")}
    variables.pop("RAY_ADDRESS", None)
    with ForkedCommands(folder, logs, variables) as started:
        yield started


def there(folder: Path) -> set[tuple[str, int]]:
    """Every file, with the time when it was last changed, and every directory. Locks are taken by whoever looks."""
    return {
        (str(path.relative_to(folder)), path.stat().st_mtime_ns if path.is_file() and path.name != "lock" else 0)
        for path in folder.rglob("*")
        if path.suffix != ".pyc" and path.name != "__pycache__"
    }


def parameters() -> Iterator[Any]:
    """Every case; all but the first one of a kind only in `make test-all`."""
    kinds: set[str] = set()
    for case in CASES:
        marks = [pytest.mark.all] if case.kind in kinds else []
        yield pytest.param(case, id=f"{case.command}: {case.given or case.kind}", marks=marks)
        kinds.add(case.kind)


@pytest.mark.parametrize("case", list(parameters()))
def test_bad_input_is_one_sentence(case: Case, folder: Path, commands: ForkedCommands) -> None:
    before = there(folder)
    ended = commands.run(case.module, case.arguments)
    name = case.command.split()[0]
    shown = f"exit {ended.code}\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"
    assert ended.code == 2, shown
    said = re.findall(rf"^{name}: .*(?:\n  .*)*", ended.stderr, re.MULTILINE)
    assert len(said) == 1 and "Traceback" not in ended.stderr, shown
    assert re.search(case.sentence, said[0]), shown
    assert there(folder) ^ before == set(), "it left something behind, or changed something"


def test_the_list_has_forty_kinds() -> None:
    assert len({case.kind for case in CASES}) >= 40
    assert len({(case.command, case.given) for case in CASES}) == len(CASES), "a case is there twice"
