"""A language model of ten lines behind our own `Generator` protocol, and a judge for it. For logic, not for proof."""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.engine.generate import Generation, Sampling
from openrlhf_cft.verify import Judgement

EOS = 0
VOCABULARY = 8


def decode(token_ids: Sequence[int]) -> str:
    """Tokens as digits, EOS left out."""
    return " ".join(str(i) for i in token_ids if i != EOS)


class HashModel:
    """Logprobs from a hash of the whole prefix, so coarse that ties are common; every prefix is a model of its own."""

    def __init__(self, seed: int, max_model_len: int = 100) -> None:
        self.seed = seed
        self.stop_token_ids = frozenset([EOS])
        self.max_model_len = max_model_len
        self.calls = 0

    def logprobs(self, prefix: Sequence[int]) -> list[tuple[int, float]]:
        """(VOCABULARY,) pairs in an order that is not the rank's."""
        digest = hashlib.sha256(repr((self.seed, list(prefix))).encode()).digest()
        return [(token, -float(digest[token] % 5)) for token in reversed(range(VOCABULARY))]

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
        """Greedy, ties to the smaller id."""
        self.calls += 1
        assert sampling.max_tokens >= 1 and sampling.temperature == 0
        prefix, tops = list(token_ids), []
        while len(tops) < sampling.max_tokens and not ended(prefix[len(token_ids) :], sampling.stop):
            tops.append(self.logprobs(prefix))
            prefix.append(min(tops[-1], key=lambda pair: (-pair[1], pair[0]))[0])
        response = prefix[len(token_ids) :]
        return Generation(response, ended(response, sampling.stop), [], tops if sampling.top_logprobs else [])

    async def score(self, token_ids: Sequence[int], start: int, top_logprobs: int) -> Generation:
        """What each position of a given continuation could have been."""
        given = list(token_ids[start:])
        tops = [self.logprobs(token_ids[:position]) for position in range(start, len(token_ids))]
        return Generation(given, given[-1] == EOS, [dict(top)[i] for top, i in zip(tops, given, strict=True)], tops)


class SamplingModel(HashModel):
    """A `HashModel` that samples too, and keeps what it was asked for."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.sampled: list[tuple[tuple[int, ...], Sampling]] = []
        self.decoded = 0

    def probabilities(self, prefix: Sequence[int], temperature: float) -> list[float]:
        """(VOCABULARY,) by token."""
        weights = {token: math.exp(logprob / temperature) for token, logprob in self.logprobs(prefix)}
        return [weights[token] / sum(weights.values()) for token in range(VOCABULARY)]

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
        """Sample by the request's seed where a temperature is asked for."""
        if not sampling.temperature:
            greedy = await super().generate(token_ids, sampling)
            self.decoded += len(greedy.token_ids)
            return greedy
        self.sampled.append((tuple(token_ids), sampling))
        rng, prefix = random.Random(sampling.seed), list(token_ids)
        while len(prefix) < len(token_ids) + sampling.max_tokens and (
            len(prefix) == len(token_ids) or prefix[-1] != EOS
        ):
            prefix += rng.choices(range(VOCABULARY), self.probabilities(prefix, sampling.temperature))
        response = prefix[len(token_ids) :]
        self.decoded += len(response)
        return Generation(response, response[-1] == EOS, [], [])


class SumJudge:
    """Correct where the sum of the digits is the answer modulo 3; a last digit of 7 is unparsable, of 6 a timeout."""

    async def judge(self, response: str, answer: str, prompt: str) -> Judgement:
        """See `VerifierPool.judge`."""
        return Judgement(sum_verdict(response, answer))

    async def accepts_gold(self, answer: str, prompt: str) -> bool:
        """Any."""
        return True


def sum_verdict(response: str, answer: str) -> Verdict:
    """What `SumJudge` says."""
    if response.endswith("7"):
        return Verdict.UNPARSABLE
    if response.endswith("6"):
        return Verdict.TIMEOUT
    return Verdict.CORRECT if sum(map(int, response.split())) % 3 == int(answer) else Verdict.WRONG


def ended(response: Sequence[int], stop: Sequence[str] = ()) -> bool:
    """By EOS, or by a string."""
    return bool(response) and (response[-1] == EOS or any(string in decode(response) for string in stop))


def literal_greedy(
    model: HashModel, prompt: Sequence[int], budget: int, stop: Sequence[str] = (), begun: Sequence[int] = ()
) -> list[int]:
    """The literal reference: one step at a time, to a response whose first tokens are `begun`."""
    response = list(begun)
    while len(response) < budget and not ended(response, stop):
        ranked = sorted(model.logprobs([*prompt, *response]), key=lambda pair: (-pair[1], pair[0]))
        response.append(ranked[0][0])
    return response


def literal_mask(
    model: HashModel,
    prompt: Sequence[int],
    k: int,
    budget: int,
    correct: Callable[[str], bool],
    given: list[int] | None = None,
    stop: Sequence[str] = (),
) -> tuple[list[int], list[float], Counter[str]]:
    """Response, mask, and how often each special case occurred; every alternative is tried."""
    response = given or literal_greedy(model, prompt, budget, stop)
    seen: Counter[str] = Counter()
    mask = []
    for t, chosen in enumerate(response):
        top = sorted(model.logprobs([*prompt, *response[:t]]), key=lambda pair: (-pair[1], pair[0]))
        others = [pair for pair in top if pair[0] != chosen][: k - 1]
        seen["tie"] += top[k - 1][1] == top[k][1]
        fails = 0
        for token, _ in others:
            changed = literal_greedy(model, prompt, budget, stop, begun=[*response[:t], token])
            suffix = changed[t + 1 :]
            seen["eos"] += token == EOS
            seen["stop"] += changed[-1] != EOS and ended(changed, stop)
            seen["stop at once"] += len(changed) == t + 1 and token != EOS and ended(changed, stop)
            seen["stop over the edge"] += bool(suffix) and ended(changed, stop) and not ended(suffix, stop)
            seen["budget"] += not ended(changed, stop)
            seen["no budget at all"] += len(changed) == budget == t + 1 and not ended(changed, stop)
            fails += not correct(decode(changed))
        mask.append(float(fails == len(others)))
    return response, mask, seen
