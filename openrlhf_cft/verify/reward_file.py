"""A user's Python file as a verifier: OpenRLHF's own `reward_func(queries, prompts, labels)` with a threshold.

    # my_reward.py, as given to OpenRLHF's --reward.remote_url
    def reward_func(queries, prompts, labels):
        return {"rewards": scores, "scores": scores, "extra_logs": {}}

    load_reward_file("my_reward.py", threshold=0.5).judge(response, label, prompt)

Each argument is a list with one item, as in OpenRLHF. The query is the prompt's text followed by the response's. The
score is `scores`, else `rewards`, else the returned value itself, and must be in [0, 1]. So graded scores, code tests
or a model that judges elsewhere become verifiers. The file may define `gold_response(label)`, which returns a response
with the gold answer. Then rows are rejected if `reward_func` refuses their own gold answer.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.errors import InputError
from openrlhf_cft.verify.judgement import Judgement, Verifier

ROUNDING = 1e-6  # a score of 0.7 in a tensor is 0.69999999, and is meant to reach a threshold of 0.7


def load_reward_file(path: str, threshold: float) -> Verifier:
    """Run the file and make a verifier from its `reward_func`.

    Args:
        path: of the Python file.
        threshold: the smallest score that counts as correct.

    Raises:
        InputError: the file has no function `reward_func`.
        Exception: any error that the file raises.
    """
    spec = importlib.util.spec_from_file_location(f"openrlhf_cft_{Path(path).stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    reward_func = getattr(module, "reward_func", None)
    if not callable(reward_func):
        raise InputError(f"{path} defines no reward_func(queries, prompts, labels)")

    def judge(response: str, answer: str, prompt: str) -> Judgement:
        score = score_of(reward_func([prompt + response], [prompt], [answer]), path)
        correct = score >= threshold - ROUNDING
        return Judgement(Verdict.CORRECT if correct else Verdict.WRONG, score=score)

    return Verifier(judge, getattr(module, "gold_response", lambda answer: None), trusted=True)


def score_of(returned: Any, path: str) -> float:
    """The score in what a `reward_func` returned for one query.

    Args:
        returned: a number, a tensor or list of one, or a dictionary with one of these as `scores` or `rewards`.
        path: of the file, for the message.

    Raises:
        InputError: the value is none of these, or the score is not in [0, 1].
    """
    value = returned
    if isinstance(value, dict):
        value = value.get("scores") if value.get("scores") is not None else value.get("rewards")
    if hasattr(value, "tolist"):  # a tensor or an array
        value = value.tolist()
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if not isinstance(value, (int, float)):
        raise InputError(f"reward_func of {path} returned {returned!r:.200}, where one score per query is expected")
    score = float(value)
    if not (math.isfinite(score) and 0.0 <= score <= 1.0):
        raise InputError(
            f"reward_func of {path} returned the score {score}: return one in [0, 1], "
            'in "scores" if "rewards" is on another scale'
        )
    return score
