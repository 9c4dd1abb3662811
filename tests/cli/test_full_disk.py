"""A disk that is full in the middle of a command: one sentence with the name that the user gave, and nothing left."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from bad_inputs import make_files

COMMANDS = {  # what each writes, and its arguments
    "derived": ["masks", "derive", "annotated", "--out", "derived", "--column", "random", "--how", "random"],
    "merged": ["masks", "merge", "annotated", "annotated", "--out", "merged"],
    "sampled": ["masks", "sample", "annotated", "--rows", "1", "--out", "sampled"],
    "transferred": ["masks", "transfer", "annotated", "--to", "model", "--out", "transferred"],
    "exported": ["masks", "export", "annotated", "--format", "jsonl", "--out", "exported"],
    "card.md": ["masks", "card", "annotated", "--out", "card.md"],
    "view.html": ["view", "annotated", "--out", "view.html"],
}
# No file may grow over 500 bytes, which is the error of a full disk for anybody, root or not.
SCRIPT = """
import importlib, json, resource, sys
from openrlhf_cft.cli.flags import run_command
for command in json.loads(sys.argv[1]):
    main = importlib.import_module(f"openrlhf_cft.cli.{command[0]}").main
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
    try:
        run_command(command[0], lambda: main(command[1:]), resumes=False)
    except SystemExit as ended:
        assert ended.code == 2, ended.code
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def test_a_full_disk_is_one_sentence_and_nothing_is_left(tmp_path: Path) -> None:
    make_files(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    script = [sys.executable, "-c", SCRIPT, json.dumps(list(COMMANDS.values()))]
    ended = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    said = [line for line in ended.stderr.splitlines() if re.match("(masks|view): ", line)]
    wanted = [
        f"{command[0]}: [Errno 27] File too large: '{tmp_path / name}'; nothing was written"
        for name, command in COMMANDS.items()
    ]
    assert said == wanted and "Traceback" not in ended.stderr
    assert sorted(tmp_path.rglob("*")) == before
