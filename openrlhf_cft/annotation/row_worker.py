"""The worker in an annotating actor: one engine, the verifier's processes, and the annotator that uses both."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from openrlhf_cft.annotation.annotator import Annotator, Outcome, Positions, Status, every_position
from openrlhf_cft.annotation.settings import AnnotateSettings, Question
from openrlhf_cft.data.model_files import weights_fingerprint
from openrlhf_cft.data.records import (
    ALTERNATIVES,
    ANSWER,
    ID,
    MASK,
    PROMPT,
    PROMPT_IDS,
    RESPONSE,
    RESPONSE_IDS,
    SAMPLED,
    VERDICT,
    alternative_to_dict,
)
from openrlhf_cft.data.source import GIVEN_IDS, GOLD
from openrlhf_cft.engine.vllm_engine import EngineSettings, VllmGenerator
from openrlhf_cft.jobs.engine_actor import Finished
from openrlhf_cft.jobs.engine_worker import EngineWorker
from openrlhf_cft.verify.sandbox import VerifierPool
from openrlhf_cft.verify.settings import VerifierSettings


@dataclass(frozen=True)
class AnnotateWorkerFactory:
    """Makes the worker inside the actor's process. The factory itself is sent there as plain settings."""

    engine: EngineSettings
    settings: AnnotateSettings
    verifier: VerifierSettings

    def __call__(self) -> AnnotateWorker:
        return AnnotateWorker(VllmGenerator(self.engine), VerifierPool(**vars(self.verifier)), self.settings)


class AnnotateWorker(EngineWorker):
    """A `engine_actor.RowWorker` that annotates."""

    positions: Positions = staticmethod(every_position)

    def __init__(self, generator: VllmGenerator, verifier: VerifierPool, settings: AnnotateSettings) -> None:
        super().__init__(generator, verifier)
        self.annotator = Annotator(
            generator, verifier, generator.decode, settings, self.positions, generator.vocabulary
        )

    async def work(self, row: dict[str, Any]) -> Finished:
        """Annotate one row of the source file."""
        outcome = Outcome(Status.CHANGED) if row.get(GIVEN_IDS, "") is None else await self._annotate(row)
        return Finished(outcome.status.value, to_payload(outcome), counters(outcome))

    async def _annotate(self, row: dict[str, Any]) -> Outcome:
        """Annotate the model's own response, or a given one."""
        given_ids = [int(i) for i in row[GIVEN_IDS]] if GIVEN_IDS in row else None
        question = Question([int(i) for i in row[PROMPT_IDS]], row[GOLD], row[PROMPT], row[ID])
        return await self.annotator.annotate(question, given_ids)


def to_payload(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON: the annotation columns of the row."""
    judgement = outcome.judgement
    return {
        RESPONSE: outcome.response,
        RESPONSE_IDS: outcome.response_token_ids,
        MASK: outcome.critical_mask,
        ALTERNATIVES: [[alternative_to_dict(a) for a in position] for position in outcome.alternatives],
        VERDICT: judgement.verdict.value if judgement else None,
        ANSWER: judgement.answer if judgement else None,
        **({SAMPLED: [asdict(sampled) for sampled in outcome.sampled]} if outcome.sampled else {}),
    }


def counters(outcome: Outcome) -> dict[str, float]:
    """The counts that one row adds to the totals, which `annotation_summary` reads."""
    outcomes = Counter(f"rollouts_{a.verdict}" for position in outcome.alternatives for a in position if a.verdict)
    return {
        "rows": 1,
        outcome.status.value: 1,
        **outcomes,
        "positions": len(outcome.critical_mask),
        "critical": sum(outcome.critical_mask),
        "rollouts": outcome.rollouts,
        "skipped": sum(a.skipped for position in outcome.alternatives for a in position),
        "decoded_tokens": outcome.decoded_tokens,
        **({"passed_over": outcome.passed_over} if outcome.passed_over else {}),
        **_sample_counters(outcome),
    }


def _sample_counters(outcome: Outcome) -> dict[str, float]:
    """The counts of sampled continuations; empty without any."""
    found = outcome.all_sampled
    if not found:
        return {}
    return {"samples": sum(one.count for one in found), "samples_correct": sum(one.correct for one in found)}


def settings_record(factory: AnnotateWorkerFactory) -> dict[str, Any]:
    """All of the settings that decide a mask, as JSON."""
    engine = factory.engine
    return {
        "model": engine.shown,
        "weights": weights_fingerprint(engine.model, revision=engine.engine_args.get("revision")),
        "dtype": engine.dtype,
        "max_model_len": engine.max_model_len,
        "engine_args": engine.public_args,
        "criterion": f"strict-{factory.settings.top_k}",
        "decoding": factory.settings.record(),
        **factory.verifier.record(),
    }
