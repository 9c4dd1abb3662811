"""A user's reward file as a verifier, and a model that judges."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from openrlhf_cft.cli.annotate import job_of
from openrlhf_cft.data.records import Verdict
from openrlhf_cft.errors import VerifierError
from openrlhf_cft.verify.reward_file import score_of
from openrlhf_cft.verify.sandbox import VerifierPool
from openrlhf_cft.verify.settings import VerifierSettings, try_reward_file

REPOSITORY = Path(__file__).parents[2]

GRADED = """
def reward_func(queries, prompts, labels):
    (query,), (prompt,), (label,) = queries, prompts, labels
    assert query.startswith(prompt)
    words = query[len(prompt):].split()
    score = sum(word == label for word in words) / max(len(words), 1)
    return {"rewards": [score * 9 - 1], "scores": [score], "extra_logs": {}}
"""


@pytest.fixture
def graded(tmp_path: Path) -> str:
    return write(tmp_path, GRADED)


def write(folder: Path, text: str) -> str:
    path = folder / "my_reward.py"
    path.write_text(text)
    return str(path)


def judge(pool: VerifierPool, *task: str) -> Any:
    return asyncio.run(pool.judge(*task))


def test_scores_and_the_threshold(graded: str) -> None:
    for threshold, expected in ((0.5, Verdict.CORRECT), (0.6, Verdict.WRONG)):
        with VerifierPool(graded, workers=1, threshold=threshold) as pool:
            half = judge(pool, "yes no", "yes", "Is it? ")
            assert (half.verdict, half.score) == (expected, 0.5)
            assert judge(pool, "", "yes", "").score == 0.0
            assert asyncio.run(pool.accepts_gold("anything"))  # no gold response is known


def test_a_gold_response_of_the_file_is_checked(tmp_path: Path) -> None:
    path = write(tmp_path, GRADED + "\ndef gold_response(label):\n    return label + ' indeed'\n")
    with VerifierPool(path, workers=1, threshold=0.5) as pool:
        assert asyncio.run(pool.accepts_gold("yes"))
        assert not asyncio.run(pool.accepts_gold("no way"))


@pytest.mark.parametrize(
    ("returned", "score"),
    [
        (1, 1.0),
        (True, 1.0),
        ([0.25], 0.25),
        ({"rewards": [0.5]}, 0.5),
        ({"rewards": [7.0], "scores": [0.75]}, 0.75),
        ({"rewards": [7.0], "scores": None}, None),
        ({"scores": 0.5, "extra_logs": {}}, 0.5),
        (-1.0, None),
        (1.5, None),
        (float("nan"), None),
        (None, None),
        ("1", None),
        ([], None),
        ([1, 1], None),
        ({}, None),
    ],
)
def test_what_a_reward_func_may_return(returned: Any, score: float | None) -> None:
    if score is None:
        with pytest.raises(ValueError, match=r"my\.py returned"):
            score_of(returned, "my.py")
    else:
        assert score_of(returned, "my.py") == score


def test_tensors_are_scores(tmp_path: Path) -> None:
    """Importing torch fits in the default memory limit."""
    text = "import torch\ndef reward_func(queries, prompts, labels):\n    return {'rewards': torch.tensor([0.75])}\n"
    with VerifierPool(write(tmp_path, text), workers=1) as pool:
        assert judge(pool, "x", "y").score == 0.75


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n", "defines no reward_func"),
        ("import missing_module\n", "missing_module"),
        ("def reward_func(queries, prompts, labels):\n    return [labels[0].nothing]\n", "nothing"),
        ("def reward_func(queries, prompts, labels):\n    return [-1.0]\n", r"score -1\.0: return one in \[0, 1\]"),
        ("def reward_func(queries, prompts, labels):\n    while True: pass\n", "exceeded its limit"),
        ("def reward_func(queries, prompts, labels):\n    return ['a' * 10**11]\n", "exceeded its limit"),
    ],
)
def test_mistakes_are_found_before_an_engine_starts(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=says):
        try_reward_file(VerifierSettings(path, time_limit=2.0), "5", "2 + 3 = ")


def test_a_file_is_tried_in_a_notebook_too(graded: str) -> None:
    async def cell() -> None:
        try_reward_file(VerifierSettings(graded), "5", "2 + 3 = ")

    asyncio.run(cell())


def test_an_error_is_no_verdict(tmp_path: Path) -> None:
    text = "def reward_func(queries, prompts, labels):\n    raise ConnectionError('no server at 10.0.0.1')\n"
    with (
        VerifierPool(write(tmp_path, text), workers=1) as pool,
        pytest.raises(VerifierError, match=r"no server at 10\.0\.0\.1"),
    ):
        judge(pool, "x", "y")


def test_the_command_takes_a_file(graded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--model.model_name_or_path", "m", "--data.dataset", "d", "--ckpt.output_dir", "o"]
    more = ["--annotate.threshold", "0.7", "--annotate.verifier_memory", "2", "--annotate.verifier_workers", "8"]
    settings = job_of([*flags, "--annotate.verifier", "my_reward.py", *more]).factory.verifier
    assert settings == VerifierSettings(graded, 0.7, 8, None, 2 << 30)
    before = settings.record()
    assert before["threshold"] == 0.7 and before["verifier"] == "my_reward.py"
    Path(graded).write_text(GRADED + "\n")
    assert settings.record() != before
    assert VerifierSettings().record() == {"verifier": "math"}
    for wrong, says in ((["other.py"], "other.py'"), (["maths"], "'maths'")):
        with pytest.raises(ValueError, match=f"--annotate.verifier: .*{says}"):
            job_of([*flags, "--annotate.verifier", *wrong])
    with pytest.raises(ValueError, match=r"--annotate.threshold: 2\.0, must be above 0"):
        job_of([*flags, "--annotate.threshold", "2"])


class Judge(BaseHTTPRequestHandler):
    """The chat completions of an OpenAI-compatible server that likes long answers; `broken` breaks it."""

    broken = False

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = asked["messages"][-1]["content"].rpartition("# Answer\n")[2]
        said = "no idea" if Judge.broken else f"It has {len(answer)} characters.\nGrade: {min(len(answer), 10)}"
        reply = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": asked["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}],
        }
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def judge_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(Judge, "broken", False)
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


JUDGING = """
import asyncio, sys
from openrlhf_cft.verify.sandbox import VerifierPool
with VerifierPool(sys.argv[1], workers=2, threshold=0.7) as pool:
    for response in ("a fine answer", "short", "1234567"):
        judgement = asyncio.run(pool.judge(response, "the reference", "Why? "))
        print(judgement.verdict, round(judgement.score, 6))
"""


def test_a_model_judges(judge_server: str) -> None:
    """The example, with the real client, against a local server; in a process of its own, for its variables."""
    environment = {**os.environ, "JUDGE_URL": judge_server, "JUDGE_MODEL": "judge"}
    command = [sys.executable, "-c", JUDGING, str(REPOSITORY / "examples" / "judge_reward.py")]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert result.stdout.splitlines() == ["correct 1.0", "wrong 0.5", "correct 0.7"], result.stderr
    Judge.broken = True
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert result.returncode != 0 and "the judge gave no grade: 'no idea'" in result.stderr
