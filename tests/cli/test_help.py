"""What `--help` says: a sentence and the default of every flag, and an example that the command accepts."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest

from openrlhf_cft.cli import annotate, doctor, evaluate, masks, view

MODULES = {"annotate": annotate, "evaluate": evaluate, "masks": masks, "view": view, "doctor": doctor}


def verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The subcommands of a parser."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Every command, and every verb of `masks`."""
    found = {name: module.parser() for name, module in MODULES.items()}
    return found | {f"masks {name}": verb for name, verb in verbs(found["masks"]).items()}


PARSERS = parsers()


@pytest.mark.parametrize("name", list(PARSERS))
def test_every_flag_has_a_sentence_and_its_default(name: str) -> None:
    shown = PARSERS[name].format_help()
    text = " ".join(shown.split())
    for action in PARSERS[name]._actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        assert action.help and len(action.help.split()) >= 2, f"{name} {action.option_strings or action.dest}"
        if action.option_strings and isinstance(action.default, (int, float, str)) and action.default is not False:
            if action.default is not argparse.SUPPRESS and "default" not in action.help:
                assert f"(default: {action.default})" in text, action.option_strings
    assert not re.search(r"\(default: (None|\[\]|\(\)|False)\)", text)


@pytest.mark.parametrize("name", list(PARSERS))
def test_the_example_at_its_end_is_accepted(name: str) -> None:
    last = PARSERS[name].format_help().rstrip().splitlines()
    assert last[-2] == "example:"
    words = shlex.split(last[-1])
    command = name.split()[0]
    assert words[:3] == ["python", "-m", f"openrlhf_cft.cli.{command}"]
    MODULES[command].parser().parse_args(words[3:])  # raises InputError where it is not


def test_flags_are_in_groups() -> None:
    lines = PARSERS["annotate"].format_help().splitlines()
    order = [lines.index(f"{group}:") for group in ("data", "vLLM engines", "annotation")]
    first = next(i for i, line in enumerate(lines) if line.strip().startswith("--annotate.top_k"))
    assert order[2] < first
    assert sum(line == "data:" for line in lines) == 1
