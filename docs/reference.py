"""Writes docs/reference.md: every flag of every command, from the parsers themselves.

python docs/reference.py          # tests/project/test_readme.py fails while the page is another one
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from openrlhf_cft.cli import annotate, doctor, evaluate, masks, view
from openrlhf_cft.train.arguments import add_flags

PAGE = Path(__file__).resolve().with_suffix(".md")
START = """# Reference of all flags

```bash
python docs/reference.py
```

This command writes this page from the commands' own parsers. `--help` of a command shows the same.

`train_sft` takes every flag of OpenRLHF's `openrlhf.cli.train_sft`, and ours below. Scripts in `examples/` list
their variables at the top.
"""
END = """
## What can go wrong

- **A flag that does not exist.** The command names it and exits with 2. Flags cannot be abbreviated.
- **A value that is not allowed.** The command names the flag and the value, before an engine or a training run starts.
"""


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command with its parser, and each verb of `masks`."""
    yield "annotate", annotate.parser()
    training = argparse.ArgumentParser()
    add_flags(training)
    yield "train_sft", training
    yield "evaluate", evaluate.parser()
    yield "view", view.parser()
    for action in masks.parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from ((f"masks {name}", verb) for name, verb in action.choices.items())
    yield "doctor", doctor.parser()


def row(action: argparse.Action) -> str:
    """One flag as a row of a table: name, what it takes, default, meaning."""
    name = f"`{action.option_strings[0]}`" if action.option_strings else f"`{action.dest}`"
    kind = getattr(action.type, "__name__", "text")
    takes = "none" if action.nargs == 0 else " \\| ".join(map(str, action.choices)) if action.choices else kind
    several = ", one or more" if action.nargs == "+" else ", or none" if action.nargs == "?" else ""
    empty = action.default is None or action.default is False or action.default in ([], (), argparse.SUPPRESS)
    default = "required" if action.required else "" if empty else f"`{action.default}`"
    meaning = " ".join((action.help or "").replace("|", "\\|").split())
    return f"| {name} | {takes}{several} | {default} | {meaning} |"


def page() -> str:
    """The whole page."""
    parts = [START]
    for name, parser in commands():
        rows = [row(action) for action in parser._actions if not isinstance(action, argparse._HelpAction)]
        head = ["| flag | takes | default | meaning |", "|---|---|---|---|"]
        parts.append("\n".join(["", f"## {name}", "", *head, *rows, ""]))
    return "".join([*parts, END])


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"{PAGE.name}: {len(page().splitlines())} lines")
