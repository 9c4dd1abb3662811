"""Text and gold answer to a `Verdict`: verifiers by name, and the sandbox that runs them.

    with VerifierPool("math") as pool:                        # from openrlhf_cft.verify.sandbox
        judgement = await pool.judge(response, gold_answer)

Importing this package is light: what a verifier needs (sympy) is imported by the workers, at its first use.
"""

from __future__ import annotations

from openrlhf_cft.verify.judgement import Judgement, Verifier
from openrlhf_cft.verify.math import judge_math

VERIFIERS: dict[str, Verifier] = {"math": judge_math}

__all__ = ["VERIFIERS", "Judgement", "Verifier", "load_verifier"]


def load_verifier(name: str) -> Verifier:
    """The verifier of this name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    if name not in VERIFIERS:
        raise ValueError(f"unknown verifier {name!r}; known: {', '.join(sorted(VERIFIERS))}")
    return VERIFIERS[name]
