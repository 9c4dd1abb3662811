"""The engine arguments that a user passes through to vLLM, as one JSON object."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from openrlhf_cft.errors import InputError


def parse_engine_args(text: str | None) -> dict[str, Any]:
    """The JSON object given as `--vllm.engine_args`.

    Raises:
        InputError: it is not a JSON object, or names an argument that vLLM does not have.
    """
    if not text:
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--vllm.engine_args is not JSON ({error}): {text!r}") from None
    if not isinstance(value, dict):
        raise InputError(f"--vllm.engine_args must be a JSON object such as '{{\"block_size\": 32}}', not {text!r}")
    known = engine_argument_names()
    for name in value:
        if name not in known:
            raise InputError(f"--vllm.engine_args: vLLM has no engine argument {name!r}")
    return value


def engine_argument_names() -> set[str]:
    """The arguments of the installed vLLM's engine. Imports vllm, which takes seconds."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    return {field.name for field in fields(AsyncEngineArgs)}
