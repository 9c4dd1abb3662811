"""What an evaluating actor holds: one engine and the verifier; per question a greedy response and n samples."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any

from openrlhf_cft.annotate.engine import EngineSettings, VllmGenerator
from openrlhf_cft.annotate.engine_actor import Finished
from openrlhf_cft.annotate.generate import Sampling
from openrlhf_cft.annotate.source import GOLD
from openrlhf_cft.records import ID, PROMPT, PROMPT_IDS, Verdict
from openrlhf_cft.verify.sandbox import VerifierPool
from openrlhf_cft.verify.settings import VerifierSettings


@dataclass(frozen=True)
class EvaluateSettings:
    """What decides the figures, apart from the model and the verifier."""

    n_samples: int = 8  # per question, at temperature 1
    max_new_tokens: int = 512
    seed: int = 42


@dataclass(frozen=True)
class EvaluateWorkerFactory:
    """Makes the worker inside the actor's process; travels there as plain settings."""

    engine: EngineSettings
    settings: EvaluateSettings
    verifier: VerifierSettings

    def __call__(self) -> EvaluateWorker:
        return EvaluateWorker(VllmGenerator(self.engine), VerifierPool(**vars(self.verifier)), self.settings)


class EvaluateWorker:
    """A `pipeline.RowWorker` that samples and verifies."""

    def __init__(self, generator: VllmGenerator, verifier: VerifierPool, settings: EvaluateSettings) -> None:
        self.generator = generator
        self.verifier = verifier
        self.settings = settings

    @property
    def dead(self) -> bool:
        """Whether the engine has died."""
        return self.generator.dead

    def close(self) -> None:
        """End the engine and the verifier's processes."""
        self.generator.close()
        self.verifier.close()

    async def work(self, row: dict[str, Any]) -> Finished:
        """One question: the greedy response, then the samples together, which find its prompt in the prefix cache."""
        budget = min(self.settings.max_new_tokens, self.generator.max_model_len - len(row[PROMPT_IDS]))
        if budget < 1:
            return Finished("too_long", {}, {"rows": 1})
        samplings = [
            Sampling(budget, temperature=1.0, seed=request_seed(self.settings.seed, row[ID], number))
            for number in range(self.settings.n_samples)
        ]
        greedy = await self._respond(row, Sampling(budget))
        samples = await asyncio.gather(*(self._respond(row, sampling) for sampling in samplings))
        tokens = greedy["length"] + sum(sample["length"] for sample in samples)
        payload = {"greedy": greedy, "samples": list(samples)}
        return Finished("evaluated", payload, {"rows": 1, "decoded_tokens": tokens})

    async def _respond(self, row: dict[str, Any], sampling: Sampling) -> dict[str, Any]:
        """One response, verified, as `metrics.metrics` reads it."""
        generation = await self.generator.generate([int(i) for i in row[PROMPT_IDS]], sampling)
        text = self.generator.decode(generation.token_ids)
        judgement = await self.verifier.judge(text, row[GOLD], row[PROMPT])
        return {
            "correct": judgement.verdict is Verdict.CORRECT,
            "verdict": judgement.verdict.value,
            "score": judgement.score,
            "response": text,
            "length": len(generation.token_ids),
            "stopped": generation.stopped,
            "logprob": sum(generation.logprobs),
        }


def request_seed(seed: int, row_id: str, number: int) -> int:
    """A seed for each sample of each question, whatever the order in which they run."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{row_id}/{number}".encode()).digest()[:4], "big")
