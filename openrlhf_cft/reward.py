"""The verifiers of annotation as OpenRLHF's reward function, so that both call the same responses correct.

    python -m openrlhf.cli.train_ppo_ray --reward.remote_url PATH/TO/openrlhf_cft/reward.py --data.label_key answer ...

`OPENRLHF_CFT_VERIFIER` names the verifier: math (default), choice or exact. A label may name its own, so that one run
mixes them: `{"verifier": "choice", "answer": "B"}`, as a struct column or as JSON text. A reward file of your own
needs nothing of this: give it to `--reward.remote_url` as it is.

Safe in threads, and in a process that holds a GPU: responses are judged in `OPENRLHF_CFT_VERIFIER_WORKERS` (default 2)
worker processes which are not forked from it. `OPENRLHF_CFT_MODEL` names the folder of the model that is trained: its
special tokens, which OpenRLHF decodes too, are taken off the end of a response. Without it those of all known model
families are. An unknown verifier ends the job when OpenRLHF loads this file. After
that nothing is raised, because OpenRLHF would log it at level INFO and leave the reward None: what goes wrong is
rewarded 0, counted in the logs that OpenRLHF writes with every step, and the first of its kind said aloud.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openrlhf_cft.data.plain_text import plain_text
from openrlhf_cft.data.records import Verdict
from openrlhf_cft.errors import InputError, VerifierError
from openrlhf_cft.verify import VERIFIERS
from openrlhf_cft.verify.sandbox import VerifierPool
from openrlhf_cft.verify.special_tokens import special_tokens, without_special_tokens

VARIABLE = "OPENRLHF_CFT_VERIFIER"
WORKERS = "OPENRLHF_CFT_VERIFIER_WORKERS"
MODEL = "OPENRLHF_CFT_MODEL"
BAD_LABEL, FAILED = "bad_label", "failed"
FAILURES = (str(Verdict.WRONG), str(Verdict.UNPARSABLE), str(Verdict.TIMEOUT), BAD_LABEL, FAILED)
MIN_OVERLAP = 16  # characters other than white space of a cut prompt that have to be found at the start of a query

MAX_TRIES = 100  # places in a prompt where the query may begin

_SPACES = [code for code in range(0x3001) if chr(code).isspace()]  # there are no others
_lock = threading.Lock()
_said: set[str] = set()
logger = logging.getLogger(__name__)


def reward_func(queries: list[str], prompts: list[str], labels: list[Any]) -> dict[str, Any]:
    """Rewards of responses: 1 where the verifier calls one correct, else 0.

    Args:
        queries: (B,) prompts with their responses behind them, as OpenRLHF decodes them.
        prompts: (B,) the prompts alone.
        labels: (B,) gold answers, or mappings (or their JSON) of `verifier` and `answer`.

    Returns:
        `rewards` and `scores`, float tensors (B,), and `extra_logs`, which maps `verdict/NAME` to a float tensor (B,),
        1 where it holds: every verdict but `correct`; `bad_label`, where a label is empty, names no known verifier, or
        is refused by its own; `failed`, where the verifier could not run, or the query does not begin with its prompt.
    """
    import torch

    outcomes = [_outcome(*row) for row in zip(queries, prompts, labels, strict=True)]
    scores = torch.tensor([float(outcome == Verdict.CORRECT.value) for outcome in outcomes])
    logs = {f"verdict/{name}": torch.tensor([float(outcome == name) for outcome in outcomes]) for name in FAILURES}
    return {"rewards": scores, "scores": scores, "extra_logs": logs}


def _outcome(query: str, prompt: str, label: Any) -> str:
    """The verdict on one response, or which failure stands in its way."""
    try:
        verifier, answer = verifier_and_answer(label)
        if not _accepts(verifier, answer):
            raise InputError(f"the verifier {verifier!r} refuses the gold answer itself")
    except InputError as error:
        _say_once(BAD_LABEL, f"label {_shown(label)}: {error}")
        return BAD_LABEL
    except VerifierError as error:
        _say_once(FAILED, str(error))
        return FAILED
    try:
        return _pool(verifier).judge_all([(response_of(query, prompt), answer)])[0].verdict.value
    except (VerifierError, InputError) as error:
        _say_once(FAILED, str(error))
        return FAILED


def verifier_and_answer(label: Any) -> tuple[str, str]:
    """The verifier that judges by this label, and the gold answer in it.

    Raises:
        InputError: the label is empty or of another shape, or its verifier unknown.
    """
    chosen = _mapping(label)
    name, answer = (_default(), label) if chosen is None else (str(chosen["verifier"]), chosen["answer"])
    if name not in VERIFIERS:
        raise InputError(f"unknown verifier {name!r}; known: {', '.join(sorted(VERIFIERS))}")
    if isinstance(answer, (bool, list, tuple, Mapping)):
        raise InputError("it is neither text nor a number")
    text = plain_text(answer)
    if text is None:
        raise InputError("it is empty; --data.label_key names the column of the gold answers")
    return name, text


def response_of(query: str, prompt: str) -> str:
    """The response in a query, without the special tokens that end it.

    A tokenizer need not give a prompt back as it was: white space may differ, and OpenRLHF cuts the start of a prompt
    that is too long.

    Raises:
        InputError: the query does not begin with the prompt, nor with the end of it.
    """
    return without_special_tokens(query[_prompt_end(query, prompt) :], _special_tokens())


def _prompt_end(query: str, prompt: str) -> int:
    """The number of characters of a query that are its prompt."""
    if query.startswith(prompt):
        return len(prompt)
    text, wanted = "".join(query.split()), "".join(prompt.split())
    start, needle = 0, text[:MIN_OVERLAP]
    for _ in range(MAX_TRIES):
        start = wanted.find(needle, start)
        if start < 0 or len(needle) < MIN_OVERLAP:
            break
        length = len(wanted) - start
        if text.endswith(wanted[-MIN_OVERLAP:], 0, length) and text.startswith(wanted[start:]):
            return _end_of_visible(query, length)
        start += 1
    if len(wanted) <= MIN_OVERLAP and text.startswith(wanted):
        return _end_of_visible(query, len(wanted))
    raise InputError(f"the query {_shown(query)} does not begin with its prompt {_shown(prompt)}")


def _end_of_visible(text: str, count: int) -> int:
    """The place behind so many characters that are no white space."""
    import numpy as np

    characters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return int(np.searchsorted(np.cumsum(~np.isin(characters, _SPACES)), count)) + 1


@functools.cache
def _special_tokens() -> frozenset[str]:
    """The special tokens of the model that `OPENRLHF_CFT_MODEL` names; empty where it names none."""
    folder = os.environ.get(MODEL)
    return special_tokens(Path(folder)) if folder else frozenset()


def _mapping(label: Any) -> Mapping[str, Any] | None:
    """The label as a mapping of `verifier` and `answer`; None where it is no mapping.

    Raises:
        InputError: it has other keys.
    """
    if isinstance(label, str) and label.lstrip().startswith("{"):
        try:
            label = json.loads(label)
        except ValueError:
            return None  # a set, say, in LaTeX or plain
    if not isinstance(label, Mapping):
        return None
    if not {"verifier", "answer"} <= label.keys():
        keys = ", ".join(map(str, label))
        raise InputError(f"it has the keys {keys}, and not `verifier` and `answer`; or give the answer alone")
    return label


def _default() -> str:
    return os.environ.get(VARIABLE, "math")


@functools.lru_cache(maxsize=1 << 16)
def _accepts(verifier: str, answer: str) -> bool:
    return _pool(verifier).judge_all([(None, answer)])[0].verdict is Verdict.CORRECT


def _pool(name: str) -> VerifierPool:
    with _lock:
        return _open_pool(name)


@functools.cache
def _open_pool(name: str) -> VerifierPool:
    return VerifierPool(name, workers=int(os.environ.get(WORKERS, "2")))


def _say_once(kind: str, what: str) -> None:
    if kind not in _said:
        _said.add(kind)
        logger.warning("reward 0, counted as verdict/%s (only the first is shown): %s", kind, what)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:100]} ... {text[-100:]}"


def _check_environment() -> None:
    """Refuse what the environment says now, in the constructor of OpenRLHF's actors, rather than in each reward.

    Raises:
        InputError: names the variable and its value.
    """
    if _default() not in VERIFIERS:
        raise InputError(f"{VARIABLE} is {_default()!r}; known: {', '.join(sorted(VERIFIERS))}")
    workers = os.environ.get(WORKERS, "2")
    if not workers.isdecimal() or int(workers) < 1:
        raise InputError(f"{WORKERS} is {workers!r}, and has to be a whole number of at least 1")
    if os.environ.get(MODEL) and not _special_tokens():
        raise InputError(f"{MODEL} is {os.environ[MODEL]!r}, and has to be a folder with a tokenizer's files")


_check_environment()
