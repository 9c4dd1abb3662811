"""A verifier that behaves as `math`, but for two responses that meet the limits of its worker, as none does there.

    with VerifierPool(slow_verifier.NAME) as pool: ...

It is registered in each worker when its name is unpickled there.
"""

from __future__ import annotations

from typing import Any

from openrlhf_cft.verify import VERIFIERS, Judgement, Verifier
from openrlhf_cft.verify.math import judge_math

TOWER = "tower"  # computes for ever, in C, holding the interpreter's lock
BOMB = "bomb"  # asks for 3 GB at once


def judge(response: str, answer: str, prompt: str) -> Judgement:
    nine = 9
    if response == TOWER:
        nine**nine**nine**nine
    if response == BOMB:
        (1,) * nine**nine
    return judge_math(response, answer, prompt)


class Name(str):
    """A name that registers its verifier wherever it arrives."""

    def __reduce__(self) -> tuple[Any, ...]:
        return register, ()


def register() -> Name:
    VERIFIERS["slow"] = Verifier(judge, VERIFIERS["math"].gold_response)
    return Name("slow")


NAME = register()
