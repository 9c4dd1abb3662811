"""Compute weights from a row's stored alternatives, without any rollout. Pure functions of one row.

Alternatives are stored in the order in which they were tried. One is skipped only if an earlier one has succeeded
(`annotation/criterion.py`). So Strict-j follows exactly from Strict-k for j <= k: either one of the first j - 1 has
succeeded, and the later ones do not matter, or all of them were tried. The share of failing alternatives does not
follow: a skipped one was not measured, so the row is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable

from openrlhf_cft.data.annotated import Row
from openrlhf_cft.data.records import (
    ALTERNATIVES,
    ID,
    RESPONSE_IDS,
    SAMPLED,
    Alternative,
    Sampled,
    Verdict,
    alternative_from_dict,
)
from openrlhf_cft.errors import InputError
from openrlhf_cft.verify.reward_file import ROUNDING


def strict(row: Row, k: int) -> list[float]:
    """Strict-k of a row that was annotated with k or more: 1 where each of the first k - 1 alternatives fails.

    Returns:
        (T,) weights.

    Raises:
        InputError: fewer alternatives are stored, or one that would decide was not tried.
    """
    return [float(critical) for critical in _each(row, k - 1, _fails)]


def rescored(row: Row, k: int, threshold: float) -> list[float]:
    """Strict-k with another threshold of the verifier's score: 1 where the score of each alternative is below it.

    An alternative whose verifier exceeded its limit has no score, and fails.

    Returns:
        (T,) weights.

    Raises:
        InputError: as `strict`; or the verifier gives no scores.
    """

    def fails(alternative: Alternative) -> bool:
        if alternative.score is None:
            if alternative.verdict is Verdict.TIMEOUT:
                return True
            raise InputError(f"alternative {alternative.rank} has no score")
        return alternative.score < threshold - ROUNDING

    return [float(critical) for critical in _each(row, k - 1, fails)]


def strict_by_rate(row: Row, k: int, threshold: float) -> list[float]:
    """Strict-k by success rates: 1 where each of the first k - 1 alternatives is correct in less than `threshold`.

    Returns:
        (T,) weights.

    Raises:
        InputError: as `strict`; or an alternative was not sampled.
    """
    return [float(critical) for critical in _each(row, k - 1, lambda a: _sampled(a).rate < threshold)]


def success_drop(row: Row) -> list[float]:
    """How far the success rate falls from the token's own to its best alternative's; 0 where it does not fall.

    Returns:
        (T,) weights from 0 to 1.

    Raises:
        InputError: a token or an alternative was not sampled.
    """
    own = row[SAMPLED]
    if own is None or len(own) != len(row[RESPONSE_IDS]):
        raise InputError(f"row {row[ID]!r} has no samples of its tokens: annotate with --annotate.samples")
    weights = []
    for position, alternatives in enumerate(_alternatives(row)):
        _require_all(row, position, alternatives, "the best success rate")
        try:
            best = max(_sampled(alternative).rate for alternative in alternatives)
        except InputError as error:
            raise InputError(_where(row, position, str(error))) from None
        weights.append(max(0.0, Sampled(**own[position]).rate - best))
    return weights


def _sampled(alternative: Alternative) -> Sampled:
    if alternative.sampled is None:
        raise InputError(f"alternative {alternative.rank} has no samples: annotate with --annotate.samples")
    return alternative.sampled


def failing_share(row: Row) -> list[float]:
    """The share of a token's alternatives that fail, 0 to 1. Every alternative must have been tried.

    Returns:
        (T,) weights.

    Raises:
        InputError: one was skipped, so its outcome is not known.
    """
    weights = []
    for position, alternatives in enumerate(_alternatives(row)):
        _require_all(row, position, alternatives, "the share of failing ones")
        weights.append(sum(alternative.failed for alternative in alternatives) / len(alternatives))
    return weights


def _require_all(row: Row, position: int, alternatives: list[Alternative], what: str) -> None:
    """Refuse a token of which an alternative was not tried."""
    if not alternatives:
        raise InputError(_where(row, position, "no alternative is stored"))
    for alternative in alternatives:
        if alternative.skipped:
            problem = f"alternative {alternative.rank} was skipped, and {what} needs them all"
            raise InputError(_where(row, position, f"{problem}: annotate with --annotate.exhaustive"))


def _fails(alternative: Alternative) -> bool:
    return alternative.failed


def _each(row: Row, count: int, fails: Callable[[Alternative], bool]) -> list[bool]:
    """For each token, whether all of its first `count` alternatives fail."""
    return [
        _all_fail(row, position, alternatives, count, fails)
        for position, alternatives in enumerate(_alternatives(row))
    ]


def _all_fail(
    row: Row, position: int, alternatives: list[Alternative], count: int, fails: Callable[[Alternative], bool]
) -> bool:
    if len(alternatives) < count:
        raise InputError(_where(row, position, f"{len(alternatives)} alternatives are stored, not {count}"))
    for alternative in alternatives[:count]:
        if alternative.skipped:
            problem = f"alternative {alternative.rank} was skipped and would decide"
            raise InputError(_where(row, position, f"{problem}: annotate with --annotate.exhaustive"))
        try:
            if not fails(alternative):
                return False
        except InputError as error:
            raise InputError(_where(row, position, str(error))) from None
    return True


def _alternatives(row: Row) -> list[list[Alternative]]:
    """(T, A), checked against the response."""
    stored = row[ALTERNATIVES]
    if stored is None:
        raise InputError(f"row {row[ID]!r} has no alternatives")
    if len(stored) != len(row[RESPONSE_IDS]):
        raise InputError(
            f"row {row[ID]!r} has alternatives of {len(stored)} positions and {len(row[RESPONSE_IDS])} response tokens"
        )
    return [[alternative_from_dict(alternative) for alternative in position or []] for position in stored]


def _where(row: Row, position: int, problem: str) -> str:
    return f"row {row[ID]!r}, response position {position}: {problem}"
