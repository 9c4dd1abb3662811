"""Judges hostile responses in this process and prints what else happened. Started by `test_verify_corpus.py`.

An audit hook sees every code object that is run by `eval` or `exec`, each compilation and import, and whatever touches
files, processes or the network.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hostile import GOLD, corpus

from openrlhf_cft.verify.math import judge_math

judging = False
seen: set[str] = set()


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if judging and event.startswith(("exec", "compile", "import", "open", "os.", "subprocess.", "socket.", "shutil.")):
        seen.add(f"{event} {arguments[0]!r}")


judge_math("\\boxed{x + \\frac{1}{2}}", "x+1")  # imports what it needs
sys.addaudithook(watch)
kinds = corpus(Path(sys.argv[1]))
judging = True
for responses in kinds.values():
    for response in responses:
        judge_math(response, GOLD)
judging = False
print(sorted(seen))
