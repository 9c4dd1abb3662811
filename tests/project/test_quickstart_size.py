"""How many questions the quickstart takes on a machine, as its script gets it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "quickstart_size.py"
sys.path.insert(0, str(EXAMPLES))

import quickstart_size  # noqa: E402
from quickstart_size import LIMIT, REFERENCE, SHARES  # noqa: E402


@pytest.mark.parametrize("importing", [0.3, 1, 1.3, 1.6, 2, 3, 10])
@pytest.mark.parametrize("products", [0.3, 1, 2.6, 6, 20])
def test_the_largest_share_that_ends_in_time(importing: float, products: float) -> None:
    machine = dataclasses.replace(
        REFERENCE, importing=importing * REFERENCE.importing, products=products * REFERENCE.products
    )
    share = quickstart_size.share_for(machine)
    assert share in SHARES
    assert quickstart_size.expected(machine, share) <= LIMIT or share == SHARES[-1]
    assert not [more for more in SHARES if more > share and quickstart_size.expected(machine, more) <= LIMIT]


def test_where_it_was_timed_it_takes_all_questions() -> None:
    assert quickstart_size.share_for(REFERENCE) == 1
    parts = quickstart_size.STARTS + quickstart_size.ROWS + quickstart_size.PRODUCTS
    assert quickstart_size.expected(REFERENCE, 1) == pytest.approx(parts)
    assert parts < LIMIT


def test_what_a_slower_machine_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    slow = dataclasses.replace(REFERENCE, importing=2 * REFERENCE.importing, products=8 * REFERENCE.products)
    monkeypatch.setattr(quickstart_size, "measure", lambda: slow)
    for name in ("TRAIN_ROWS", "TEST_ROWS"):
        monkeypatch.delenv(name, raising=False)
    share = quickstart_size.share_for(slow)
    assert share < 1
    quickstart_size.main()
    output = capsys.readouterr()
    assert output.out == f"TRAIN_ROWS={int(160 * share)} TEST_ROWS={int(48 * share)}\n"
    assert output.err.startswith(f"quickstart: {share:.0%} of the questions, to end in about ")
    assert (
        "8.0 times as long; TRAIN_ROWS=160 TEST_ROWS=48 RUN=runs/all make quickstart takes all questions" in output.err
    )
    monkeypatch.setenv("TRAIN_ROWS", "96")
    quickstart_size.main()
    assert capsys.readouterr().out == f"TRAIN_ROWS=96 TEST_ROWS={int(48 * share)}\n"


def test_a_machine_with_gpus_takes_all_and_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quickstart_size, "uses_gpu", lambda: True)
    monkeypatch.setattr(quickstart_size, "measure", lambda: pytest.fail("it measured"))
    quickstart_size.main()
    assert capsys.readouterr().out == "TRAIN_ROWS=160 TEST_ROWS=48\n"


def test_this_machine_is_measured() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("TRAIN_ROWS", "TEST_ROWS")}
    result = subprocess.run(
        [sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    chosen = dict(part.split("=") for part in result.stdout.split())
    assert int(chosen["TRAIN_ROWS"]) in [int(share * 160) for share in SHARES]
    assert (chosen["TRAIN_ROWS"] == "160") == (result.stderr == "")


def test_a_number_that_is_none_is_refused() -> None:
    result = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "TRAIN_ROWS": "all"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == "quickstart: TRAIN_ROWS=all is not a whole number above 0\n"
