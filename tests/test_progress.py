"""Progress in a file and in a terminal, with a clock of the test's own; what is logged, as commands show it."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from typing import TextIO

import pytest

from openrlhf_cft import log, progress
from openrlhf_cft.cli.masks import parser
from openrlhf_cft.errors import InputError

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO "
child = log.PACKAGE.getChild("some.module")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress.shutil, "get_terminal_size", lambda: os.terminal_size((60, 24)))
    return clock


def test_elsewhere_there_is_a_message_every_half_minute(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    log.show()
    told = progress.Progress("masks stats", 140)
    for _ in told.over(range(140)):
        now[0] += 0.5
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(STAMP + "masks stats: 60/140 rows, 2.0 rows/s, ETA 40 s", first)
    assert re.fullmatch(STAMP + "masks stats: 120/140 rows, 2.0 rows/s, ETA 10 s", second)


def test_what_is_done_soon_says_nothing(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    log.show()
    for _ in progress.Progress("masks stats", 10).over(range(10)):
        now[0] += 0.5
    assert capsys.readouterr().err == ""


def test_a_terminal_has_one_line(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    log.show()
    line = progress.LiveLine(at_once=True)
    for number in range(10):
        line.show(f"{number}/10 rows, " + "x" * 80)
        now[0] += 0.5
    line.close()
    line.close()
    texts = re.split(r"\r", terminal.getvalue())
    assert [text[:5] for text in texts[1:]] == ["0/10 ", "2/10 ", "4/10 ", "6/10 ", "8/10 "]
    assert all(len(text.rstrip("\n").removesuffix("\x1b[K")) == 59 for text in texts[1:]), "a longer one would wrap"
    assert terminal.getvalue().count("\n") == 1 and terminal.getvalue().endswith("\n")


def test_a_message_takes_the_place_of_the_live_line(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    log.show()
    line = progress.LiveLine(at_once=True)
    line.show("1/10 rows")
    child.warning("row 'x' failed")
    assert terminal.getvalue() == "\r1/10 rows\x1b[K\r\x1b[Krow 'x' failed\n"


def test_a_line_at_once(now: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    line = progress.LiveLine(at_once=True)
    for _ in range(7):
        line.show(f"at {now[0]:.0f}")
        now[0] += 10
    line.close()
    assert caplog.messages == ["at 100", "at 130", "at 160"]


@pytest.mark.parametrize("arguments", ["--log_level warning stats x", "stats x --log_level=warning"])
def test_the_level_is_a_flag_of_each_command(
    arguments: str, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    log.show()
    assert vars(parser().parse_args(arguments.split()))["verb"] == "stats"
    child.info("not shown")
    child.warning("shown")
    progress.LiveLine(at_once=True).show("not shown")
    assert terminal.getvalue() == "\r\x1b[Kshown\n"
    with pytest.raises(InputError, match="--log_level: invalid choice: 'loud'"):
        parser().parse_args(["--log_level", "loud", "stats", "x"])


def test_a_program_that_has_set_logging_up_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    log.show_unless_configured()
    assert not log.PACKAGE.handlers, "pytest has set it up"
    monkeypatch.setattr(root, "handlers", [])
    log.show_unless_configured()
    log.show()
    assert len(log.PACKAGE.handlers) == 1


class Gone(Terminal):
    """A terminal whose window was closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("stream", [None, Gone(), open(os.devnull)])
def test_a_closed_standard_error_ends_nothing(
    stream: TextIO | None, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    if stream is not None and not isinstance(stream, Gone):
        stream.close()
    log.show()
    line = progress.LiveLine(at_once=True)
    line.show("1/10 rows")
    child.warning("row 'x' failed")
    line.close()
    log.say("the end")
