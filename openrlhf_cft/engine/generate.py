"""The `Generator` protocol: token ids in, token ids and logprobs out. It depends on no engine.

`vllm_engine.py` implements it on vLLM; tests implement it in ten lines. All other code of annotation and evaluation is
written for this protocol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MAX_LOGPROBS = 64  # top tokens that a request may ask for


@dataclass(frozen=True)
class Sampling:
    """How one continuation is decoded. The default is greedy."""

    max_tokens: int  # budget of new tokens, at least 1
    temperature: float = 0.0  # 0 is greedy: the argmax at every step
    top_p: float = 1.0  # sample from the most probable tokens that together have this probability
    top_logprobs: int = 0  # how many of the most probable tokens to report at each position
    seed: int | None = None  # of this request, for sampling, if the engine supports it
    stop: tuple[str, ...] = ()  # strings at which an engine may stop, after the token that completes one, or later


@dataclass(frozen=True)
class Generation:
    """One continuation of T tokens."""

    token_ids: list[int]  # (T,), including the stop token if there is one
    stopped: bool  # ended by a stop token or a stop string, not by the budget
    logprobs: list[float]  # (T,) natural logarithm, of the generated tokens; empty without top_logprobs
    top_logprobs: list[list[tuple[int, float]]]  # (T, >= top_logprobs) of (token id, logprob)


def request_seed(*parts: object) -> int:
    """A seed for a request, from what it is about. So it does not depend on the order in which requests run."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big")


class Generator(Protocol):
    """Continues token sequences, many at a time."""

    stop_token_ids: frozenset[int]
    max_model_len: int  # prompt and continuation together, in tokens

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Generation:
        """Continue `token_ids`, which holds at least one token.

        Raises:
            EngineError: the engine failed.
        """
        ...

    async def score(self, token_ids: Sequence[int], start: int, top_logprobs: int) -> Generation:
        """The model's logprobs at each position of a given continuation, `token_ids[start:]`.

        There must be room for one more token: `len(token_ids) < max_model_len`.

        Returns:
            The continuation as a `Generation`, with its logprobs and the top ones of each position.

        Raises:
            EngineError: the engine failed.
        """
        ...
