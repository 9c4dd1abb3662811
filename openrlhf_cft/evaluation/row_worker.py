"""The worker in an evaluating actor: an engine and the verifiers; a greedy response and n samples per question."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

from openrlhf_cft.data.records import ID, PROMPT, PROMPT_IDS
from openrlhf_cft.data.source import GOLD
from openrlhf_cft.engine.generate import Sampling, request_seed
from openrlhf_cft.engine.shared_engine import SharedEngine
from openrlhf_cft.engine.stop_strings import StopStrings
from openrlhf_cft.engine.vllm_engine import EngineSettings
from openrlhf_cft.evaluation.joint_run import JointId
from openrlhf_cft.evaluation.samples import EVALUATED, TOO_LONG, SampledResponse, to_payload
from openrlhf_cft.jobs.engine_actor import Finished
from openrlhf_cft.jobs.engine_worker import EngineWorker
from openrlhf_cft.verify.sandbox import VerifierPool
from openrlhf_cft.verify.settings import VerifierSettings


@dataclass(frozen=True)
class EvaluateSettings:
    """The settings that decide the responses, besides the model and the verifier."""

    n_samples: int = 8  # per question
    max_new_tokens: int = 512
    seed: int = 42
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()  # strings that end a response, besides the stop tokens

    def record(self) -> dict[str, Any]:
        """The settings as JSON. Unused settings of later versions are left out, so that earlier runs can resume."""
        record = asdict(self)
        if not self.stop:
            del record["stop"]
        return record


@dataclass(frozen=True)
class EvaluateWorkerFactory:
    """Makes the worker inside the actor's process. The factory itself is sent there as plain settings."""

    engines: dict[str, EngineSettings]  # by the name of a checkpoint; they share an engine
    settings: EvaluateSettings
    verifiers: dict[str, VerifierSettings]  # by the key of a data set

    def __call__(self) -> EvaluateWorker:
        pools = {verifier: VerifierPool(**vars(verifier)) for verifier in dict.fromkeys(self.verifiers.values())}
        judges = {key: pools[verifier] for key, verifier in self.verifiers.items()}
        return EvaluateWorker(SharedEngine(self.engines), judges, self.settings)


class EvaluateWorker(EngineWorker):
    """A `engine_actor.RowWorker` that samples and verifies."""

    def __init__(self, engine: SharedEngine, judges: dict[str, VerifierPool], settings: EvaluateSettings) -> None:
        super().__init__(engine.generator, *{id(pool): pool for pool in judges.values()}.values())
        self.engine = engine
        self.judges = judges
        self.settings = settings
        self.stop = StopStrings(settings.stop, self.generator.decode)

    @property
    def dead(self) -> bool:
        """Whether the engine has died, or has weights of two checkpoints."""
        return self.engine.dead

    async def work(self, row: dict[str, Any]) -> Finished:
        """Answer one question: first greedily, then all samples at once, which find its prompt in the prefix cache.

        The id of the row is a `JointId`.
        """
        asked = JointId.read(row[ID])
        budget = min(self.settings.max_new_tokens, self.generator.max_model_len - len(row[PROMPT_IDS]))
        if budget < 1:
            return Finished(TOO_LONG, {}, {"rows": 1})
        async with self.engine.at(asked.checkpoint):
            greedy = await self._respond(row, Sampling(budget, stop=self.settings.stop))
            samples = await self._samples(row, samplings(self.settings, asked.id, budget))
        tokens = greedy.length + sum(sample.length for sample in samples)
        payload = {"greedy": to_payload(greedy), "samples": [to_payload(sample) for sample in samples]}
        return Finished(EVALUATED, payload, {"rows": 1, "decoded_tokens": tokens})

    async def _samples(self, row: dict[str, Any], drawn: list[Sampling]) -> list[SampledResponse]:
        """All samples. If one fails, the others end first: no request may outlast the weights that it began with."""
        found = await asyncio.gather(*(self._respond(row, sampling) for sampling in drawn), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return [one for one in found if isinstance(one, SampledResponse)]

    async def _respond(self, row: dict[str, Any], sampling: Sampling) -> SampledResponse:
        """One response, verified."""
        generation = self.stop.cut(await self.generator.generate([int(i) for i in row[PROMPT_IDS]], sampling))
        text = self.generator.decode(generation.token_ids)
        judged = await self.judges[JointId.read(row[ID]).key].judge(text, row[GOLD], row[PROMPT])
        return SampledResponse(
            text, generation.token_ids, judged.answer, judged.verdict, judged.score, generation.stopped
        )


def samplings(settings: EvaluateSettings, row_id: str, budget: int) -> list[Sampling]:
    """The sampling parameters of one question's samples, each with its own seed."""
    seeds = [request_seed(settings.seed, row_id, number) for number in range(settings.n_samples)]
    return [Sampling(budget, settings.temperature, settings.top_p, seed=s, stop=settings.stop) for s in seeds]
