"""How different the samples of one question are: distinct answers, and distinct-n over tokens. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from openrlhf_cft.evaluation.majority import normalised

LARGEST_N = 3


def distinct_answers(answers: Sequence[str | None]) -> int:
    """The number of different answers, as `majority.normalised` compares them. Samples without one do not count."""
    return len({normalised(answer) for answer in answers if answer is not None})


def distinct_n(samples: Sequence[Sequence[int]], n: int) -> float | None:
    """Distinct-n (Li et al. 2016, arXiv 1510.03055): different n-grams / all n-grams, over one question's samples.

    It falls with the length and the number of samples: compare checkpoints at equal settings, and look at lengths too.

    Args:
        samples: token ids of each, the stop token included. No n-gram crosses from one sample into the next.
        n: number of tokens in an n-gram.

    Returns:
        A share in (0, 1]; None if no sample has n tokens.
    """
    grams = [tuple(sample[i : i + n]) for sample in samples for i in range(len(sample) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None
