"""What is annotated, and the settings that decide a mask and what is measured beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from openrlhf_cft.engine.generate import MAX_LOGPROBS
from openrlhf_cft.errors import InputError

HIGHEST_K = MAX_LOGPROBS - 8  # Strict-k asks for eight more tokens, because of ties
UNUSED = {"stop": (), "keep_rollouts": False, "samples": 0}  # values with which a setting decides nothing
OF_SAMPLES = ("temperature", "seed")  # decide nothing without samples


@dataclass(frozen=True)
class AnnotateSettings:
    """The settings that decide a mask, besides the model and the verifier."""

    top_k: int = 3  # k of Strict-k
    max_new_tokens: int = 512  # budget of the response; a rollout gets what is left of it at its position
    exhaustive: bool = False  # try every alternative, even of tokens that are already decided
    stop: tuple[str, ...] = ()  # strings that end a response or a rollout, besides the stop tokens
    keep_rollouts: bool = False  # keep the text of each rollout
    samples: int = 0  # sampled continuations of each tried alternative, and of the response's own token
    temperature: float = 1.0  # of these
    seed: int = 42  # of these

    def __post_init__(self) -> None:
        if not 2 <= self.top_k <= HIGHEST_K:
            raise InputError(f"--annotate.top_k: {self.top_k} must be between 2 and {HIGHEST_K}")
        if self.max_new_tokens < 1:
            raise InputError(f"--annotate.max_new_tokens: {self.max_new_tokens} must be at least 1")
        if "" in self.stop:
            raise InputError("--annotate.stop: '' would end every response before it begins")
        if self.samples < 0:
            raise InputError(f"--annotate.samples: {self.samples} must be at least 0")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InputError(f"--annotate.temperature: {self.temperature} must be a number above 0")

    def record(self) -> dict[str, Any]:
        """The settings as JSON. Unused settings of later versions are left out, so that earlier runs can resume."""
        record = asdict(self)
        unused = [name for name, value in UNUSED.items() if record[name] == value]
        for name in [*unused, *(OF_SAMPLES if not self.samples else ())]:
            del record[name]
        return record


@dataclass(frozen=True)
class Question:
    """The prompt of a row, and its gold answer."""

    prompt_ids: Sequence[int]  # (P,) at least one
    answer: str  # the gold answer
    prompt: str = ""  # text of the prompt; only reward files use it
    id: str = ""  # of the row; the seeds of its samples depend on it
