"""Turn weights of response tokens into a mask over the whole sequence. No other module shifts by one."""

from __future__ import annotations

from collections.abc import Sequence

from openrlhf_cft.errors import InputError


def loss_mask(prompt_length: int, weights: Sequence[float], max_length: int) -> list[float]:
    """Convert weights of response tokens to the loss mask over the whole sequence, shifted by one.

    Args:
        prompt_length: P, number of prompt tokens, at least 1.
        weights: (T,) one weight per response token.
        max_length: the sequence is cut to this many tokens.

    Returns:
        (min(P + T, max_length),) where entry p - 1 is the weight of the token at p, and the last entry is 0 (the
        logits there predict nothing).

    Raises:
        InputError: the prompt is empty, so nothing predicts the first response token.
    """
    if prompt_length < 1:
        raise InputError("prompt_length is 0: without a prompt token nothing predicts the first response token")
    mask = [0.0] * (prompt_length - 1) + [float(w) for w in weights] + [0.0]
    length = min(prompt_length + len(weights), max_length)
    return [*mask[: length - 1], 0.0]


def labels(
    prompt_ids: Sequence[int], response_ids: Sequence[int], weights: Sequence[float]
) -> tuple[list[int], list[int]]:
    """A row as `transformers` and TRL train it: `input_ids`, and `labels` that are -100 where nothing is trained.

    Labels are not shifted: the model's loss does that. They can express only the weights 0 and 1.

    Returns:
        `input_ids` and `labels`, each of length P + T.

    Raises:
        InputError: a weight is neither 0 nor 1.
    """
    for position, weight in enumerate(weights):
        if weight not in (0, 1):
            raise InputError(f"weight {weight} at response position {position}: labels can only say 0 or 1")
    trained = [token if weight else -100 for token, weight in zip(response_ids, weights, strict=True)]
    return [*prompt_ids, *response_ids], [-100] * len(prompt_ids) + trained
