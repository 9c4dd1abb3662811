"""The common part of annotating and evaluating workers: one engine, and the verifier's processes beside it."""

from __future__ import annotations

from openrlhf_cft.engine.vllm_engine import VllmGenerator
from openrlhf_cft.verify.sandbox import VerifierPool


class EngineWorker:
    """An `engine_actor.RowWorker` without its method `work`."""

    def __init__(self, generator: VllmGenerator, *verifiers: VerifierPool) -> None:
        self.generator = generator
        self.verifiers = verifiers

    @property
    def dead(self) -> bool:
        """Whether the engine has died."""
        return self.generator.dead

    def close(self) -> None:
        """End the engine and the verifier's processes."""
        self.generator.close()
        for verifier in self.verifiers:
            verifier.close()
