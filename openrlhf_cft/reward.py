"""The verifiers of annotation as OpenRLHF's reward function, so that both judge the same responses correct.

    python -m openrlhf.cli.train_ppo_ray --reward.remote_url PATH/TO/openrlhf_cft/reward.py --data.label_key answer ...

`OPENRLHF_CFT_VERIFIER` names the verifier: math (default), choice or exact. A label may name its own verifier, so one
run can mix them: `{"verifier": "choice", "answer": "B"}`, as a struct column or as JSON text. Your own reward file
does not need this module: give it to `--reward.remote_url` as it is.

The function is safe in threads, and in a process that holds a GPU: `OPENRLHF_CFT_VERIFIER_WORKERS` (default 2) worker
processes judge the responses, and they are not forked from it. `OPENRLHF_CFT_MODEL` names the folder of the model that
is trained. OpenRLHF decodes special tokens too, so those of this model are removed from the end of a response. Without
the variable, those of all known model families are removed.

An unknown verifier ends the job when OpenRLHF loads this file. Later errors are not raised, because OpenRLHF would log
them at level INFO and leave the reward None. Instead the response gets the reward 0. The error is counted in the logs
that OpenRLHF writes with every step, and the first one of each kind is logged as a warning.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import threading
import unicodedata
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
MIN_OVERLAP = 16  # so many characters of a cut prompt, not counting white space, must stand at the start of a query

MAX_TRIES = 100  # positions in a prompt that are tried as the start of the query

_SPACES = [code for code in range(0x3001) if chr(code).isspace()]  # Unicode has no other white space
_lock = threading.Lock()
_said: set[str] = set()
logger = logging.getLogger(__name__)


def reward_func(queries: list[str], prompts: list[str], labels: list[Any]) -> dict[str, Any]:
    """Rewards of responses: 1 if the verifier calls the response correct, else 0.

    Args:
        queries: (B,) prompts followed by their responses, as OpenRLHF decodes them.
        prompts: (B,) the prompts alone.
        labels: (B,) gold answers, or mappings of `verifier` and `answer`, or the JSON of such a mapping.

    Returns:
        `rewards` and `scores`, float tensors (B,), and `extra_logs`, which maps `verdict/NAME` to a float tensor (B,),
        1 where NAME applies. NAME is a verdict (`wrong`, `unparsable`, `timeout`); or `bad_label`: the label is empty,
        names no known verifier, or its own verifier refuses it; or `failed`: the verifier could not run, or the query
        does not begin with its prompt.
    """
    import torch

    outcomes = [_outcome(*row) for row in zip(queries, prompts, labels, strict=True)]
    scores = torch.tensor([float(outcome == Verdict.CORRECT.value) for outcome in outcomes])
    logs = {f"verdict/{name}": torch.tensor([float(outcome == name) for outcome in outcomes]) for name in FAILURES}
    return {"rewards": scores, "scores": scores, "extra_logs": logs}


def _outcome(query: str, prompt: str, label: Any) -> str:
    """The verdict on one response, or the failure that prevents it: `bad_label` or `failed`."""
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
    """The name of the verifier for a label, and the label's gold answer.

    Raises:
        InputError: the label is empty or has another form, or its verifier is unknown.
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

    The query may repeat its prompt with changes: a tokenizer may change white space or compose characters (Qwen), and
    OpenRLHF cuts the start of a prompt that is too long.

    Raises:
        InputError: the query begins neither with the prompt nor with the end of it.
    """
    try:
        end = _prompt_end(query, prompt)
    except InputError:
        query, prompt = (unicodedata.normalize("NFC", text) for text in (query, prompt))
        end = _prompt_end(query, prompt)
    return without_special_tokens(query[end:], _special_tokens())


def _prompt_end(query: str, prompt: str) -> int:
    """The number of characters that the prompt takes at the start of a query."""
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
    """The index after the first `count` characters that are not white space."""
    import numpy as np

    characters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return int(np.searchsorted(np.cumsum(~np.isin(characters, _SPACES)), count)) + 1


@functools.cache
def _special_tokens() -> frozenset[str]:
    """The special tokens of the model that `OPENRLHF_CFT_MODEL` names; empty if it names none."""
    folder = os.environ.get(MODEL)
    return special_tokens(Path(folder)) if folder else frozenset()


def _mapping(label: Any) -> Mapping[str, Any] | None:
    """The label as a mapping of `verifier` and `answer`; None if it is not a mapping.

    Raises:
        InputError: the mapping lacks one of these keys.
    """
    if isinstance(label, str) and label.lstrip().startswith("{"):
        try:
            label = json.loads(label)
        except ValueError:
            return None  # for example a set, in LaTeX or as plain text
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
    verdict = _pool(verifier).judge_all([(None, answer)])[0].verdict
    if verdict is Verdict.TIMEOUT:  # perhaps for lack of memory just now; an exception is not cached
        raise VerifierError(f"the gold answer {_shown(answer)} itself exceeded its limits")
    return verdict is Verdict.CORRECT


def _pool(name: str) -> VerifierPool:
    with _lock:
        return _open_pool(name)


@functools.cache
def _open_pool(name: str) -> VerifierPool:
    return VerifierPool(name, workers=int(os.environ.get(WORKERS, "2")))


def _forget_pools() -> None:
    """In a forked child: the threads that serve the pools are the parent's."""
    global _lock
    _lock = threading.Lock()
    _open_pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)


def _say_once(kind: str, what: str) -> None:
    if kind not in _said:
        _said.add(kind)
        logger.warning("reward 0, counted as verdict/%s (only the first is shown): %s", kind, what)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:100]} ... {text[-100:]}"


def _check_environment() -> None:
    """Refuse bad environment variables on import, in the constructor of OpenRLHF's actors, not later in each reward.

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
