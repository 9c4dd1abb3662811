"""How different the samples of one question are: distinct answers, and distinct-n over tokens. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from openrlhf_cft.evaluation.majority import normalised

LARGEST_N = 3


def distinct_answers(answers: Sequence[str | None]) -> int:
    """How many answers the samples give that differ as `majority.normalised` compares them; no answer is none."""
    return len({normalised(answer) for answer in answers if answer is not None})


def distinct_n(samples: Sequence[Sequence[int]], n: int) -> float | None:
    """Distinct-n (Li et al. 2016, arXiv 1510.03055): different n-grams by n-grams, over all samples of one question.

    Falls with the length and the number of samples: compare checkpoints at equal settings, and lengths beside it.

    Args:
        samples: token ids of each, the stop token included. No n-gram reaches from one into the next.
        n: tokens of an n-gram.

    Returns:
        A share in (0, 1]; None where no sample has n tokens.
    """
    grams = [tuple(sample[i : i + n]) for sample in samples for i in range(len(sample) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None
