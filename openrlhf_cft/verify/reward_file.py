"""A user's Python file as a verifier: OpenRLHF's own `reward_func(queries, prompts, labels)`, and a threshold.

    # my_reward.py, as given to OpenRLHF's --reward.remote_url
    def reward_func(queries, prompts, labels):
        return {"rewards": scores, "scores": scores, "extra_logs": {}}

    load_reward_file("my_reward.py", threshold=0.5).judge(response, label, prompt)

Lists of one are passed, as OpenRLHF does: the query is the prompt's text with the response's behind it. The score is
`scores`, else `rewards`, else what was returned, and has to be in [0, 1]: graded scores, code tests or a model that
judges elsewhere become verifiers. The file may define `gold_response(label)`, a response that gives the gold answer;
then rows whose gold answer its own `reward_func` refuses are rejected.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

from openrlhf_cft.data.records import Verdict
from openrlhf_cft.errors import InputError
from openrlhf_cft.verify.judgement import Judgement, Verifier

ROUNDING = 1e-6  # a score of 0.7 is 0.69999999 when it comes as a tensor, and meant to reach a threshold of 0.7


def load_reward_file(path: str, threshold: float) -> Verifier:
    """Run the file and make a verifier of its `reward_func`.

    Args:
        path: of the Python file.
        threshold: the smallest score that counts as correct.

    Raises:
        InputError: it has no function `reward_func`.
        Exception: whatever the file raises.
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
        InputError: it is none of these, or not in [0, 1].
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
