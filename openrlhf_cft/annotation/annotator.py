"""Annotate one prompt: its greedy response, the verdict, and the counterfactuals of every response token.

    annotator = Annotator(generator, judge, decode, AnnotateSettings(top_k=3, max_new_tokens=64))
    outcome = await annotator.annotate(Question(prompt_token_ids, gold_answer))
    outcome = await annotator.annotate(Question(prompt_token_ids, gold_answer), given_response_token_ids)

It works with any `Generator`. Positions are independent and run concurrently. The alternatives of one position run one
after the other, because the next one is needed only while the token is undecided. This does not change the mask.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from openrlhf_cft.annotation.criterion import TIE_MARGIN, Candidate, candidates, decided, is_critical, passed_over
from openrlhf_cft.annotation.rollouts import Judge, Rollouts
from openrlhf_cft.annotation.settings import AnnotateSettings, Question
from openrlhf_cft.data.records import Alternative, Sampled, Verdict
from openrlhf_cft.engine.generate import Generation, Generator, Sampling
from openrlhf_cft.verify import Judgement


class Status(str, enum.Enum):
    """The result for a row. Only `ANNOTATED` rows enter the annotated data set; all others are only counted."""

    ANNOTATED = "annotated"
    WRONG = "wrong"  # the response ended by itself and is not correct
    CUT_OFF = "cut_off"  # the response ran out of the token budget
    TOO_LONG = "too_long"  # the prompt leaves no room for a response
    BAD_ANSWER = "bad_answer"  # the verifier refuses the row's own gold answer
    CHANGED = "changed"  # the chat template changes the given response

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Outcome:
    """All measurements of one row. T response tokens, A alternatives of each."""

    status: Status
    response_token_ids: list[int] = field(default_factory=list)  # (T,)
    response: str = ""
    judgement: Judgement | None = None
    critical_mask: list[float] = field(default_factory=list)  # (T,), empty unless annotated
    alternatives: list[list[Alternative]] = field(default_factory=list)  # (T, A), empty unless annotated
    given: bool = False  # the response was given, not generated
    passed_over: int = 0  # ids without text that would have been alternatives
    sampled: list[Sampled] = field(default_factory=list)  # (T,) of the response's own tokens; empty without samples

    @property
    def rollouts(self) -> int:
        """The number of counterfactuals that were verified, including those that are a stop token."""
        return sum(not alternative.skipped for position in self.alternatives for alternative in position)

    @property
    def decoded_tokens(self) -> int:
        """The number of tokens that the engine generated: all rollouts, and the response unless it was given."""
        tried = [alternative for position in self.alternatives for alternative in position]
        rolled = sum(alternative.rollout_length for alternative in tried)
        rolled += sum(sampled.tokens for sampled in self.all_sampled)
        return rolled if self.given else len(self.response_token_ids) + rolled

    @property
    def all_sampled(self) -> list[Sampled]:
        """Of the response's own tokens, and of the alternatives."""
        tried = [alternative for position in self.alternatives for alternative in position]
        return [*self.sampled, *(alternative.sampled for alternative in tried if alternative.sampled)]


class Position(NamedTuple):
    """What was measured at one token of a response."""

    alternatives: list[Alternative]  # (A,)
    sampled: Sampled | None  # of the response's own token; None without samples


Positions = Callable[[Question, int], Sequence[int]]  # from a question and its T, some of 0 ... T - 1, in order


def every_position(question: Question, length: int) -> Sequence[int]:
    """All positions of the response."""
    return range(length)


class Annotator:
    """Strict-k annotation of one row at a time; any number of `annotate` calls may run concurrently."""

    def __init__(
        self,
        generator: Generator,
        judge: Judge,
        decode: Callable[[Sequence[int]], str],
        settings: AnnotateSettings,
        positions: Positions = every_position,
        vocabulary: Container[int] | None = None,
    ) -> None:
        """
        Args:
            generator: generates responses and rollouts.
            judge: verifies them.
            decode: turns the token ids of a response into its text.
            settings: the settings that decide a mask.
            positions: chooses the tokens of a response to try; the outcome's mask and alternatives cover only these.
            vocabulary: the ids that stand for a token; None for all.
        """
        self.generator = generator
        self.judge = judge
        self.decode = decode
        self.settings = settings
        self.positions = positions
        self.vocabulary = vocabulary
        self.rollouts = Rollouts(generator, judge, decode, settings)
        self.stop = self.rollouts.stop

    async def annotate(self, question: Question, given_ids: Sequence[int] | None = None) -> Outcome:
        """Annotate the model's own greedy response to a prompt, or a given one.

        Args:
            question: the prompt and its gold answer.
            given_ids: (T,) token ids of a response, at least one, its stop token included. The budget is the same: a
                longer response counts as cut off. A response that contains a stop string ends there.

        Raises:
            EngineError, VerifierError: the infrastructure failed; nothing was measured, try the row again.
        """
        prompt_ids = question.prompt_ids
        budget = min(self.settings.max_new_tokens, self.generator.max_model_len - len(prompt_ids))
        if budget < 1:
            return Outcome(Status.TOO_LONG)
        if not await self.judge.accepts_gold(question.answer, question.prompt):
            return Outcome(Status.BAD_ANSWER)
        top = self.settings.top_k + TIE_MARGIN
        if given_ids is not None:  # its lengths count once it ends where one of the model's own would end
            given_ids = self.stop.cut(Generation(list(given_ids), True, [], [])).token_ids
        if given_ids is None:
            sampling = Sampling(budget, top_logprobs=top, stop=self.settings.stop)
            response = await self.generator.generate(prompt_ids, sampling)
        elif len(prompt_ids) + len(given_ids) >= self.generator.max_model_len:
            return Outcome(Status.TOO_LONG)
        elif len(given_ids) > budget:
            return Outcome(Status.CUT_OFF, list(given_ids), self.decode(given_ids), given=True)
        else:
            response = await self.generator.score([*prompt_ids, *given_ids], len(prompt_ids), top)
        response = self.stop.cut(response)
        text = self.decode(response.token_ids)
        judgement = await self.judge.judge(text, question.answer, question.prompt)
        status = _status(response, judgement)
        if status is not Status.ANNOTATED:
            return Outcome(status, response.token_ids, text, judgement, given=given_ids is not None)
        measured = await self._counterfactuals(question, response, budget)
        alternatives = [position.alternatives for position in measured]
        mask = [float(is_critical([a.verdict for a in position if a.verdict])) for position in alternatives]
        over = sum(
            passed_over(top, self._candidates(response, position), self.vocabulary)
            for position, top in enumerate(response.top_logprobs)
        )
        sampled = [position.sampled for position in measured if position.sampled]
        given = given_ids is not None
        return Outcome(status, response.token_ids, text, judgement, mask, alternatives, given, over, sampled)

    async def _counterfactuals(self, question: Question, response: Generation, budget: int) -> list[Position]:
        """Measure each position, (T,). Early positions start first: their rollouts are longest."""
        tasks = [
            asyncio.ensure_future(self._position(question, response, position, budget))
            for position in self.positions(question, len(response.token_ids))
        ]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:  # one failed position leaves the row unmeasured: stop the rollouts of the others
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _position(self, question: Question, response: Generation, position: int, budget: int) -> Position:
        """Try the alternatives of one position in rank order until the token is decided; then sample, if asked to."""
        before, budget = response.token_ids[:position], budget - position - 1
        tried: list[Alternative] = []
        for candidate in self._candidates(response, position):
            if decided([a.verdict for a in tried if a.verdict], self.settings.exhaustive):
                tried.append(_skipped(candidate))
                continue
            tried.append(await self.rollouts.greedy(question, [*before, candidate.token_id], candidate, budget))
        if not self.settings.samples:
            return Position(tried, None)
        tokens = [response.token_ids[position], *(a.token_id for a in tried if not a.skipped)]
        own, *others = await asyncio.gather(
            *(self.rollouts.sampled(question, [*before, token], budget) for token in tokens)
        )
        of_token = dict(zip(tokens[1:], others, strict=True))
        return Position([replace(a, sampled=of_token.get(a.token_id)) for a in tried], own)

    def _candidates(self, response: Generation, position: int) -> list[Candidate]:
        """The alternatives of one position, in rank order."""
        top, chosen = response.top_logprobs[position], response.token_ids[position]
        return candidates(top, chosen, self.settings.top_k, self.vocabulary)


def _status(response: Generation, judgement: Judgement) -> Status:
    """A response is annotated only when it ended by itself and is correct."""
    if not response.stopped:
        return Status.CUT_OFF
    return Status.ANNOTATED if judgement.verdict is Verdict.CORRECT else Status.WRONG


def _skipped(candidate: Candidate) -> Alternative:
    """The record of a candidate that was not tried, because it could no longer change the mask."""
    return Alternative(candidate.token_id, candidate.rank, candidate.logprob, None, 0, truncated=False, skipped=True)
