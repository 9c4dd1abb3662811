"""A checkpoint's own distribution at each token of given responses, from one transformers forward in float32.

    scored = score("runs/cft", [PromptResponse(prompt_ids, response_ids)], "evaluate cft")
    scored[0].entropy           # (T,) nats

The model runs in its own process, and its memory is freed when the process ends. So neither vLLM's processes nor the
driver hold the model. It is spread over the GPUs that the driver sees (which must hold it in float32); without GPUs it
runs on the CPU. Entropies are exact: over the whole vocabulary, at temperature 1.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from openrlhf_cft import log
from openrlhf_cft.data.model_files import TRUST_REMOTE_CODE
from openrlhf_cft.engine.platform import apply_environment
from openrlhf_cft.errors import JobError
from openrlhf_cft.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WINDOW = 1024  # tokens whose logits are in memory at a time: with a vocabulary of 150,000, each copy takes 600 MB


@dataclass(frozen=True)
class PromptResponse:
    """A prompt and a response to it."""

    prompt_ids: list[int]  # (P,), at least one
    response_ids: list[int]  # (T,), at least one


@dataclass(frozen=True)
class Scored:
    """The model's figures for each response token, given all tokens before it."""

    entropy: Any  # (T,) float32, of the model's distribution at the token, nats
    nll: Any  # (T,) float32, -log probability of the token, nats


def score(model: str, sequences: Sequence[PromptResponse], name: str) -> list[Scored]:
    """Score responses in a separate process, which loads the model once.

    Args:
        model: path or hub name of a checkpoint.
        sequences: what to score.
        name: for the progress lines.

    Raises:
        JobError: the process failed, or was killed; the message says how.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    level = log.PACKAGE.getEffectiveLevel()
    process = context.Process(
        target=_child, args=(sender, model, list(sequences), name, os.getpid(), level), daemon=True
    )
    process.start()
    sender.close()  # so that `recv` notices here when the process dies
    try:
        reply = receiver.recv()
    except EOFError:
        process.join()
        raise JobError(
            f"measuring entropies of {model!r} ended with exit code {process.exitcode}"
            + (", killed, perhaps for lack of memory" if process.exitcode == -signal.SIGKILL else "")
            + "; --eval.entropy_positions 0 leaves them out"
        ) from None
    finally:
        process.kill()
        process.join()
    if isinstance(reply, str):
        raise JobError(f"measuring entropies of {model!r}: {reply}; --eval.entropy_positions 0 leaves them out")
    scored: list[Scored] = reply
    return scored


def _child(
    sender: Connection, model: str, sequences: list[PromptResponse], name: str, parent: int, log_level: int
) -> None:
    """Send a list of `Scored`, or an error message."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    apply_environment()
    log.show(log_level)
    try:
        loaded = load(model)
        scored: list[Scored] = []
        progress = Progress(f"{name}: entropies", len(sequences), "responses")
        for sequence in sequences:
            if os.getppid() != parent:
                return
            scored.append(score_sequence(loaded, sequence))
            progress.add(1)
        sender.send(scored)
    except Exception as error:  # of torch or transformers, of any type
        sender.send(f"{type(error).__name__}: {error}")


def load(model: str) -> PreTrainedModel:
    """Load the checkpoint in float32, in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    place: dict[str, Any] = {"device_map": "auto"} if torch.cuda.is_available() else {}
    return AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, trust_remote_code=TRUST_REMOTE_CODE, **place
    ).eval()


def score_sequence(model: PreTrainedModel, sequence: PromptResponse, window: int = WINDOW) -> Scored:
    """Score one response. A long one is scored in windows, with a key-value cache: the same numbers, less memory.

    Args:
        model: as `load` returns it.
        sequence: the prompt and the response.
        window: tokens that go through the model at a time.
    """
    import torch

    from openrlhf_cft.engine.logits import entropy, nll

    prompt, response = sequence.prompt_ids, sequence.response_ids
    assert prompt and response, "nothing precedes the first token, or there is none"
    ids = torch.tensor([prompt + response], device=model.device)
    first, last = len(prompt) - 1, ids.shape[1] - 1  # the logits at p predict the token at p + 1
    entropies, nlls, cache = [], [], None
    with torch.inference_mode():
        for start in range(0, last, window):
            end = min(start + window, last)
            keep = end - max(start, min(first, end - 1))  # at least one position: 0 would mean all of them
            out = model(ids[:, start:end], past_key_values=cache, use_cache=last > window, logits_to_keep=keep)
            cache = out.past_key_values
            if end <= first:
                continue
            logits = out.logits[0]
            entropies.append(entropy(logits).cpu())
            nlls.append(nll(logits, ids[0, end - keep + 1 : end + 1].to(logits.device)).cpu())
    return Scored(torch.cat(entropies).numpy(), torch.cat(nlls).numpy())
