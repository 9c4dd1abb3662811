"""Our verifiers as OpenRLHF's reward function, called as OpenRLHF calls it."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import unicodedata
from dataclasses import replace
from typing import Any

import psutil
import pytest
from openrlhf.utils.agent import SingleTurnAgentExecutor

import openrlhf_cft
from openrlhf_cft import reward
from openrlhf_cft.data.records import Verdict
from openrlhf_cft.errors import VerifierError
from openrlhf_cft.verify.sandbox import VerifierPool

QUERY = "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n"


def outcome(query: str, prompt: str, label: Any) -> str:
    """The one thing that is logged of a response, after checking that it is one, and the reward with it."""
    result = reward.reward_func([query], [prompt], [label])
    (value,) = result["rewards"].tolist()
    logged = {name.removeprefix("verdict/"): count.item() for name, count in result["extra_logs"].items()}
    assert set(logged) == set(reward.FAILURES) and result["scores"].tolist() == [value]
    failures = [name for name, count in logged.items() if count]
    assert value + len(failures) == 1
    return failures[0] if failures else "correct"


def test_on_the_threads_of_openrlhf() -> None:
    """Its own class loads the file and runs the function on threads, many at once."""
    executor = SingleTurnAgentExecutor(reward.__file__)

    async def fetch(texts: list[str]) -> Any:
        queries = [QUERY + text for text in texts]
        return await executor._fetch_rewards_via_func(queries, [QUERY] * len(texts), ["5"] * len(texts))

    right, wrong, none = "it is 5<|im_end|>", "6.<|im_end|>", "none</s>\n"
    infos = asyncio.run(fetch([right, wrong, none] * 32))
    assert [info["rewards"].tolist() for info in infos] == [[1.0], [0.0], [0.0]] * 32
    assert sum(info["extra_logs"]["verdict/wrong"].item() for info in infos) == 32
    assert sum(info["extra_logs"]["verdict/unparsable"].item() for info in infos) == 32


@pytest.mark.parametrize(
    ("label", "response", "expected"),
    [
        ("5", "5", "correct"),
        (5, "5.0", "correct"),
        ({"verifier": "choice", "answer": "B"}, "The answer is (B).", "correct"),
        ('{"verifier": "choice", "answer": "B"}', "The answer is (C).", "wrong"),
        ({"verifier": "exact", "answer": "yes"}, "yes", "correct"),
        ("\\{1, 2\\}", "\\boxed{\\{2, 1\\}}", "correct"),
        ("{1, 2}", "\\boxed{\\{2, 1\\}}", "correct"),
        ("", "5", "bad_label"),
        (None, "5", "bad_label"),
        ({"verifier": "chioce", "answer": "B"}, "B", "bad_label"),
        ({"verifier": "choice", "answer": "maybe"}, "B", "bad_label"),
        ({"verifier": "math", "answer": None}, "B", "bad_label"),
        ({"ground_truth": "18"}, "#### 18", "bad_label"),
        ('{"ground_truth": "18", "style": "rule"}', "#### 18", "bad_label"),
        ({}, "#### 18", "bad_label"),
        (["18"], "#### 18", "bad_label"),
        (True, "True", "bad_label"),
        (float("nan"), "nan", "bad_label"),
        ({"verifier": "math", "answer": ["18"]}, "#### 18", "bad_label"),
        (18.0, "#### 18", "correct"),
        ({"verifier": "exact", "answer": 18.0}, "#### 18", "correct"),
        (b"18", "#### 18", "correct"),
        (r"\{1, 2\}", r"\boxed{\{2, 1\}}", "correct"),
    ],
)
def test_labels(label: Any, response: str, expected: str) -> None:
    assert outcome(QUERY + response, QUERY, label) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("5", "5"),
        ("5<|im_end|>", "5"),
        ("5</s>", "5"),
        ("5<|end|>\n<|pad|><|pad|>", "5"),
        ("x < 5", "x < 5"),
        ("", ""),
    ],
)
def test_special_tokens_at_the_end(response: str, expected: str) -> None:
    assert reward.response_of(QUERY + response, QUERY) == expected


def test_a_prompt_that_comes_back_otherwise() -> None:
    """White space that a tokenizer changes, and a prompt of which OpenRLHF has cut the start."""
    prompt = "Question: 7 apples, 3 eaten. How many are left? Answer:"
    assert reward.response_of(" " + prompt.replace("? ", "?  ") + " 4", prompt) == " 4"
    assert reward.response_of(prompt[20:] + " 4", prompt) == " 4"
    assert outcome(prompt[20:] + " no idea", prompt, "3") == "unparsable"  # the 3 is the prompt's
    for other in ("wer: 3", "3", ""):
        assert outcome(other, prompt, "3") == "failed"
    composed = "A 5 \u2126 resistor at a cafe\u0301: answer "  # as users write it; Qwen's tokenizer composes it
    assert outcome(unicodedata.normalize("NFC", composed) + "10", composed, "10") == "correct"


def test_a_gold_answer_that_timed_out_once_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, calls = VerifierPool.judge_all, []

    def slow_at_first(self: VerifierPool, pairs: list[Any]) -> list[Any]:
        calls.append(pairs)
        found = judge(self, pairs)
        return [replace(found[0], verdict=Verdict.TIMEOUT)] if len(calls) == 1 else found

    monkeypatch.setattr(VerifierPool, "judge_all", slow_at_first)
    reward._accepts.cache_clear()
    assert [outcome(QUERY + "5", QUERY, "5") for _ in range(2)] == ["failed", "correct"]


def _judged_in_a_fork(queue: Any) -> None:
    queue.put((outcome(QUERY + "5", QUERY, "5"), openrlhf_cft.judge("5", "5").verdict))


def test_a_forked_child_has_workers_of_its_own() -> None:
    assert outcome(QUERY + "5", QUERY, "5") == "correct" and openrlhf_cft.judge("5", "5").verdict is Verdict.CORRECT
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_judged_in_a_fork, args=(queue,))
    child.start()
    try:
        assert queue.get(timeout=300) == ("correct", Verdict.CORRECT)
        child.join(300)
        assert child.exitcode == 0
    finally:
        child.kill()


def test_a_verifier_that_cannot_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> None:
        raise VerifierError("no process can be started")

    monkeypatch.setattr(VerifierPool, "judge_all", broken)
    monkeypatch.setattr(reward, "_said", set())
    reward._accepts.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert [outcome(QUERY + "5", QUERY, "5") for _ in range(3)] == ["failed"] * 3
    assert caplog.messages == [
        "reward 0, counted as verdict/failed (only the first is shown): no process can be started"
    ]


def test_the_environment_is_checked_when_openrlhf_loads_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRLHF_CFT_VERIFIER_WORKERS", "none")
    with pytest.raises(ValueError, match="OPENRLHF_CFT_VERIFIER_WORKERS is 'none'"):
        SingleTurnAgentExecutor(reward.__file__)
    monkeypatch.setenv("OPENRLHF_CFT_VERIFIER", "maths")
    with pytest.raises(ValueError, match="OPENRLHF_CFT_VERIFIER is 'maths'; known: choice, exact, math"):
        SingleTurnAgentExecutor(reward.__file__)
    assert outcome(QUERY + "5", QUERY, "5") == "bad_label"


HOLDER = """
import json, threading, time
from openrlhf_cft.reward import reward_func
threads = [threading.Thread(target=time.sleep, args=(1000,), daemon=True) for _ in range(4)]
[thread.start() for thread in threads]
print(json.dumps(reward_func(["5"], [""], ["5"])["rewards"].tolist()), flush=True)
time.sleep(1000)
"""


def test_workers_are_not_forked_from_the_caller_and_end_with_it() -> None:
    """A forked worker would have the threads' locks and, in an actor of OpenRLHF, its GPU."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == [1.0]
        family = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in family if child.ppid() != process.pid]
        # One has given the answer; the other starts in its own time.
        assert workers, "the workers are children of the server that they are forked from"
        for worker in workers:
            assert not any("libtorch" in mapping.path for mapping in worker.memory_maps())
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    _, alive = psutil.wait_procs(family, timeout=300)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
