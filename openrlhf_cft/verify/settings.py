"""Which verifier judges, and under which limits: the settings that go from the command line to the actors.

settings = VerifierSettings("choice")
with VerifierPool(**vars(settings)) as pool: ...
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.errors import InputError, VerifierError
from openrlhf_cft.verify import is_reward_file
from openrlhf_cft.verify.sandbox import VerifierPool


@dataclass(frozen=True)
class VerifierSettings:
    """The arguments of `VerifierPool`; None stands for its defaults."""

    verifier: str = "math"
    threshold: float = 0.5
    workers: int = 2
    time_limit: float | None = None
    memory_limit: int | None = None

    def checked(self) -> VerifierSettings:
        """The same settings, checked, with the absolute path of a user's file.

        On a cluster, workers have other current directories.

        Raises:
            ValueError: as in `VerifierPool`.
        """
        given = vars(self)
        if is_reward_file(self.verifier):
            given = {**given, "verifier": os.path.abspath(self.verifier)}
        VerifierPool(**given).close()  # checks its arguments, starts nothing
        return VerifierSettings(**given)

    def record(self) -> dict[str, Any]:
        """The settings that decide a verdict, as JSON. For a user's file, its name and a hash of its content.

        Raises:
            InputError: the file is gone.
        """
        given = {k: v for k, v in asdict(self).items() if k in ("time_limit", "memory_limit") and v is not None}
        record = {"verifier": self.verifier, **{f"verifier_{name}": value for name, value in given.items()}}
        if not is_reward_file(self.verifier):
            return record
        try:
            content = Path(self.verifier).read_bytes()
        except OSError as error:
            raise InputError(f"cannot read the verifier's file {self.verifier!r}: {error}") from error
        digest = hashlib.sha256(content).hexdigest()[:16]
        return {**record, "verifier": Path(self.verifier).name, "verifier_sha256": digest, "threshold": self.threshold}


def try_reward_file(settings: VerifierSettings, answer: str, prompt: str) -> None:
    """Let a user's reward file judge an empty response, to show its errors at once. Other verifiers are not tried.

    Raises:
        InputError: the file fails, with its error, or exceeds its limits.
    """
    if not is_reward_file(settings.verifier):
        return
    with VerifierPool(**{**vars(settings), "workers": 1}) as pool:
        try:
            judgement = pool.judge_now("", answer, prompt)
        except VerifierError as error:
            raise InputError(f"{settings.verifier}, asked to judge an empty response: {error}") from error
    if judgement.verdict is Verdict.TIMEOUT:
        raise InputError(f"{settings.verifier} exceeded its limit of time or memory on an empty response")
