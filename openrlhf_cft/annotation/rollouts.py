"""Rollouts: a response's beginning is continued, greedily or by sampling, and the text is verified."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from typing import Protocol

from openrlhf_cft.annotation.criterion import Candidate
from openrlhf_cft.annotation.settings import AnnotateSettings, Question
from openrlhf_cft.data.records import Alternative, Sampled, Verdict
from openrlhf_cft.engine.generate import Generator, Sampling, request_seed
from openrlhf_cft.engine.stop_strings import StopStrings
from openrlhf_cft.verify import Judgement

# Rollouts at a time, of all rows of an engine: more than an engine decodes at once. Each holds its whole prefix, so
# without a bound, 64 rows of 2,000 tokens would take 6 GiB of the engine's memory for prompts that only wait.
ROLLOUTS = 2_048


class Judge(Protocol):
    """Judges the text of a response by the gold answer. `verify.sandbox.VerifierPool` implements it."""

    async def judge(self, response: str, answer: str, prompt: str) -> Judgement: ...

    async def accepts_gold(self, answer: str, prompt: str) -> bool: ...


class Rollouts:
    """Continues and verifies beginnings of responses; any number of calls may run concurrently.

    A beginning is the response up to a position, and another token there, or the response's own. One that ends with a
    stop token or a stop string is complete, and nothing is decoded.
    """

    def __init__(
        self, generator: Generator, judge: Judge, decode: Callable[[Sequence[int]], str], settings: AnnotateSettings
    ) -> None:
        """For the arguments see `annotator.Annotator`."""
        self.generator = generator
        self.judge = judge
        self.decode = decode
        self.settings = settings
        self.stop = StopStrings(settings.stop, decode)
        self._free = asyncio.Semaphore(ROLLOUTS)

    async def greedy(self, question: Question, prefix: list[int], candidate: Candidate, budget: int) -> Alternative:
        """Continue greedily after `prefix`, which ends with the candidate. `budget` may be 0.

        Raises:
            EngineError, VerifierError: the infrastructure failed.
        """
        suffix, ended, judgement = await self._one(question, prefix, Sampling(budget, stop=self.settings.stop))
        verdict = judgement.verdict
        if not ended and verdict in (Verdict.WRONG, Verdict.UNPARSABLE):
            verdict = Verdict.TRUNCATED
        return Alternative(
            candidate.token_id,
            candidate.rank,
            candidate.logprob,
            verdict,
            len(suffix),
            truncated=not ended,
            skipped=False,
            score=judgement.score,
            text=self.decode(suffix) if self.settings.keep_rollouts else None,
        )

    async def sampled(self, question: Question, prefix: list[int], budget: int) -> Sampled:
        """Continue `settings.samples` times by sampling. A prefix that is complete counts as often as others.

        Each continuation has a seed of its own: it depends on the row, the position, the token there, and its number.

        Raises:
            EngineError, VerifierError: the infrastructure failed.
        """
        settings = self.settings
        once = budget < 1 or self._complete(prefix)
        place = (settings.seed, question.id, len(prefix) - 1, prefix[-1])
        done = await asyncio.gather(
            *(
                self._one(
                    question,
                    prefix,
                    Sampling(budget, settings.temperature, seed=request_seed(*place, number), stop=settings.stop),
                )
                for number in range(1 if once else settings.samples)
            )
        )
        correct = sum(judgement.verdict is Verdict.CORRECT for _, _, judgement in done)
        scores = [judgement.score for _, _, judgement in done if judgement.score is not None]
        return Sampled(
            settings.samples,
            correct * settings.samples if once else correct,
            statistics.fmean(scores) if scores else None,
            sum(len(suffix) for suffix, _, _ in done),
        )

    def _complete(self, prefix: list[int]) -> bool:
        return prefix[-1] in self.generator.stop_token_ids or self.stop.ends(prefix)

    async def _one(
        self, question: Question, prefix: list[int], sampling: Sampling
    ) -> tuple[list[int], bool, Judgement]:
        """The tokens that follow, whether the response ended by itself, and the verdict on all of its text."""
        suffix: list[int] = []
        ended = self._complete(prefix)
        async with self._free:
            if not ended and sampling.max_tokens > 0:
                generation = await self.generator.generate([*question.prompt_ids, *prefix], sampling)
                generation = self.stop.cut(generation, prefix)
                suffix, ended = generation.token_ids, generation.stopped
            text = self.decode([*prefix, *suffix])
            return suffix, ended, await self.judge.judge(text, question.answer, question.prompt)
