"""An evaluating worker without Ray and without an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from openrlhf_cft.data.records import ID, PROMPT, PROMPT_IDS, Verdict
from openrlhf_cft.data.source import GOLD
from openrlhf_cft.engine.generate import Generation, Sampling
from openrlhf_cft.errors import VerifierError
from openrlhf_cft.evaluation.joint_run import JointId
from openrlhf_cft.evaluation.row_worker import EvaluateSettings, EvaluateWorker

ROW = {ID: str(JointId("cft", "test-1", 0, "a/b")), PROMPT: "1 + 1?", PROMPT_IDS: [5, 6], GOLD: "2"}


class Scripted:
    """In place of a `SharedEngine` and its generator: the samples take longer one after the other."""

    max_model_len = 100
    dead = False

    def __init__(self) -> None:
        self.generator = self
        self.running = 0
        self.asked: list[str] = []
        self.left_with: list[int] = []

    @asynccontextmanager
    async def at(self, name: str) -> AsyncIterator[Scripted]:
        self.asked.append(name)
        try:
            yield self
        finally:
            self.left_with.append(self.running)

    def decode(self, token_ids: list[int]) -> str:
        return " ".join(map(str, token_ids))

    async def generate(self, token_ids: list[int], sampling: Sampling) -> Generation:
        self.running += 1
        await asyncio.sleep(0.01 * self.running)
        number, self.running = self.running, self.running - 1
        return Generation([number, 1], True, [], [])


class Judge:
    """In place of a verifier: fails on the responses that it is told."""

    def __init__(self, fails: str | None = None) -> None:
        self.fails = fails

    async def judge(self, response: str, gold: str, prompt: str) -> Any:
        if response == self.fails:
            raise VerifierError("planted")
        return SimpleNamespace(answer="2", verdict=Verdict.CORRECT, score=1.0)


def work(judge: Judge) -> tuple[Scripted, Any]:
    engine = Scripted()
    worker = EvaluateWorker(engine, {"test-1": judge}, EvaluateSettings(n_samples=4))  # type: ignore[arg-type, dict-item]
    return engine, worker.work(ROW)


def test_all_responses_come_from_the_rows_own_checkpoint() -> None:
    engine, working = work(Judge())
    finished = asyncio.run(working)
    assert len(finished.payload["samples"]) == 4 and finished.counts == {"rows": 1, "decoded_tokens": 10}
    assert engine.asked == ["cft"] and engine.left_with == [0]


def test_no_request_outlasts_a_row_that_fails() -> None:
    """Other weights may be loaded as soon as the row has left."""
    engine, working = work(Judge(fails="4 1"))
    with pytest.raises(VerifierError, match="planted"):
        asyncio.run(working)
    assert engine.left_with == [0]
