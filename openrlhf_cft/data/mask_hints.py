"""Hints at likely problems of masks that counterfactuals made, each with a remedy. Most masks get no hint."""

from __future__ import annotations

from openrlhf_cft.data.records import MASK

LOW_CRITICAL_SHARE = 0.05  # the paper's hint: under this the criterion is too strict for the model
HIGH_CRITICAL_SHARE = 0.5  # above this the mask says little about a token
MANY_CUT_OFF = 0.2  # share of the rollouts


def made_by_counterfactuals(column: str, criterion: object) -> bool:
    """Whether the hints apply to a column of weights: it is the mask that the annotator made."""
    return column == MASK and str(criterion).startswith("strict-")


def mask_hints(critical: int, tokens: int, cut_off: int, rollouts: int) -> list[str]:
    """The hints for one mask.

    Args:
        critical: number of critical tokens, out of `tokens`.
        cut_off: number of rollouts that ran out of their budget without the answer, out of `rollouts`.
    """
    lines = []
    if cut_off > MANY_CUT_OFF * rollouts:
        lines.append(
            f"{cut_off} of {rollouts} rollouts were cut off and count as failed, which inflates the mask: raise "
            "--annotate.max_new_tokens, or use a model that ends its responses"
        )
    if critical > HIGH_CRITICAL_SHARE * tokens:
        lines.append(
            f"over {HIGH_CRITICAL_SHARE:.0%} of the tokens are critical, so the mask selects little. The model would "
            "hardly write these responses itself: annotate its own, or train it on these first"
        )
    if critical < LOW_CRITICAL_SHARE * tokens:
        lines.append(
            f"under {LOW_CRITICAL_SHARE:.0%} of the tokens are critical; the criterion may be too strict for this "
            "model, try --annotate.top_k 2"
        )
    return lines
