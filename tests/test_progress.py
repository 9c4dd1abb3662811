"""Progress in a file and in a terminal, with a clock of the test's own."""

from __future__ import annotations

import io
import os
import re

import pytest

from openrlhf_cft import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress.shutil, "get_terminal_size", lambda: os.terminal_size((60, 24)))
    return clock


def test_a_file_gets_a_line_every_half_minute(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    told = progress.Progress("masks stats", 140)
    for _ in told.over(range(140)):
        now[0] += 0.5
    assert capsys.readouterr().err.splitlines() == [
        "masks stats: 60/140 rows, 2.0 rows/s, ETA 40 s",
        "masks stats: 120/140 rows, 2.0 rows/s, ETA 10 s",
    ]


def test_what_is_done_soon_says_nothing(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress.Progress("masks stats", 10).over(range(10)):
        now[0] += 0.5
    assert capsys.readouterr().err == ""


def test_a_terminal_has_one_line(now: list[float]) -> None:
    stream = Terminal()
    line = progress.LiveLine(stream, at_once=True)
    for number in range(10):
        line.show(f"{number}/10 rows, " + "x" * 80)
        now[0] += 0.5
    line.close()
    line.close()
    texts = re.split(r"\r", stream.getvalue())
    assert [text[:5] for text in texts[1:]] == ["0/10 ", "2/10 ", "4/10 ", "6/10 ", "8/10 "]
    assert all(len(text.rstrip("\n").removesuffix("\x1b[K")) == 59 for text in texts[1:]), "a longer one would wrap"
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().endswith("\n")


def test_a_line_at_once(now: list[float]) -> None:
    stream = io.StringIO()
    line = progress.LiveLine(stream, at_once=True)
    for _ in range(7):
        line.show(f"at {now[0]:.0f}")
        now[0] += 10
    line.close()
    assert stream.getvalue() == "at 100\nat 130\nat 160\n"
