"""Turn a text and a gold answer into a `Verdict`: verifiers by name, and the sandbox that runs them.

    with VerifierPool("math") as pool:                        # from openrlhf_cft.verify.sandbox
        judgement = await pool.judge(response, gold_answer)

Importing this package is light: the workers import what a verifier needs (mpmath) at its first use.
"""

from __future__ import annotations

import os

from openrlhf_cft.errors import InputError
from openrlhf_cft.verify.choice import gold_choice, judge_choice
from openrlhf_cft.verify.exact import judge_exact
from openrlhf_cft.verify.gold import gold_response
from openrlhf_cft.verify.judgement import Judgement, Verifier
from openrlhf_cft.verify.math import judge_math
from openrlhf_cft.verify.reward_file import load_reward_file

VERIFIERS: dict[str, Verifier] = {
    "math": Verifier(judge_math, gold_response),
    "choice": Verifier(judge_choice, gold_choice),
    "exact": Verifier(judge_exact, lambda answer: answer),
}

__all__ = ["VERIFIERS", "Judgement", "Verifier", "check_verifier", "is_reward_file", "load_verifier"]


def is_reward_file(name: str) -> bool:
    """Whether this names a user's Python file. OpenRLHF uses the same test."""
    return name.endswith(".py")


def check_verifier(name: str) -> None:
    """Refuse a verifier that does not exist, without running a user's file.

    Raises:
        InputError: names the verifier; the message lists the known ones.
    """
    if is_reward_file(name):
        if not os.path.isfile(name):
            raise InputError(f"no verifier file {name!r}")
    elif name not in VERIFIERS:
        known = ", ".join(sorted(VERIFIERS))
        raise InputError(f"unknown verifier {name!r}; known: {known}, or a Python file with a reward_func")


def load_verifier(name: str, threshold: float = 0.5) -> Verifier:
    """Load the verifier of this name; a user's file is run.

    Args:
        name: one of `VERIFIERS`, or the path of a Python file with OpenRLHF's `reward_func`.
        threshold: the smallest score of such a file that counts as correct; the named verifiers score 0 or 1.

    Raises:
        InputError: there is no such verifier.
        Exception: any error that the file raises.
    """
    check_verifier(name)
    return load_reward_file(name, threshold) if is_reward_file(name) else VERIFIERS[name]
