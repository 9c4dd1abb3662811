"""The verifiers of annotation as OpenRLHF's reward function, so that both call the same responses correct.

    python -m openrlhf.cli.train_ppo_ray --reward.remote_url PATH/TO/openrlhf_cft/reward.py --data.label_key answer ...

`OPENRLHF_CFT_VERIFIER` names the verifier: math (default), choice or exact. A reward file of your own needs nothing
of this: give it to `--reward.remote_url` as it is. Safe in threads, and in a process that holds a GPU: responses are
judged in worker processes which are not forked from it.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from typing import Any

from openrlhf_cft.records import Verdict
from openrlhf_cft.verify import VERIFIERS
from openrlhf_cft.verify.sandbox import VerifierPool

VARIABLE = "OPENRLHF_CFT_VERIFIER"

# OpenRLHF decodes special tokens too, and a response ends with one or more.
_SPECIAL_TOKENS = re.compile(r"(?:\s{0,9}<[|/]?[A-Za-z_|]{1,40}[|]?>\s{0,9})+\Z")
_lock = threading.Lock()


def reward_func(queries: list[str], prompts: list[str], labels: list[str]) -> dict[str, Any]:
    """Rewards of responses: 1 where the verifier calls one correct, else 0.

    Args:
        queries: (B,) prompts with their responses behind them, as OpenRLHF decodes them.
        prompts: (B,) the prompts alone.
        labels: (B,) gold answers.

    Returns:
        `rewards` and `scores`, float tensors (B,), and `extra_logs` with a tensor (B,) for each verdict but `correct`.

    Raises:
        ValueError: the environment names no verifier that is known.
        VerifierError: the verifier's workers cannot run.
    """
    import torch

    pairs = [
        (response_of(query, prompt), str(label)) for query, prompt, label in zip(queries, prompts, labels, strict=True)
    ]
    judgements = _pool(os.environ.get(VARIABLE, "math")).judge_all(pairs)
    scores = torch.tensor([judgement.score or 0.0 for judgement in judgements])
    failures = [verdict for verdict in Verdict if verdict not in (Verdict.CORRECT, Verdict.TRUNCATED)]
    logs = {str(verdict): torch.tensor([float(j.verdict is verdict) for j in judgements]) for verdict in failures}
    return {"rewards": scores, "scores": scores, "extra_logs": logs}


def response_of(query: str, prompt: str) -> str:
    """The response in a query, without the special tokens that end it."""
    return _SPECIAL_TOKENS.sub("", query.removeprefix(prompt))


def _pool(name: str) -> VerifierPool:
    with _lock:
        return _open_pool(name)


@functools.cache
def _open_pool(name: str) -> VerifierPool:
    if name not in VERIFIERS:
        raise ValueError(f"{VARIABLE} is {name!r}; known: {', '.join(sorted(VERIFIERS))}")
    return VerifierPool(name)
