"""`masks compare`: two masks of the same responses, from two data sets or from two columns of one.

Rows are matched by id and by their response tokens. Rows without a partner are counted by reason. Of B, memory holds
a digest of a few bytes per row and one byte per token.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from openrlhf_cft.data.annotated import AnnotatedData, Row
from openrlhf_cft.data.records import ALTERNATIVES, ID, RESPONSE_IDS, SAMPLED, check_weights
from openrlhf_cft.data.token_text import Kind, pieces
from openrlhf_cft.data.tokenizer import require_one_tokenizer
from openrlhf_cft.masks.agreement import Agreement, agreement, cohen_kappa
from openrlhf_cft.masks.sampled_verdicts import SampledVerdicts, verdicts_text
from openrlhf_cft.progress import Progress

__all__ = ["Comparison", "cohen_kappa", "compare"]


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison. A pair of rows counts once."""

    whole: Agreement
    by_kind: dict[Kind, Agreement]  # empty if there was no tokenizer
    rows: int  # compared
    identical: int  # of these, rows whose masks are equal in every token
    unmatched: dict[str, int]  # rows that were not compared, by reason
    sampled: dict[str, Any] | None  # of A, see `sampled_verdicts`; None without samples

    def figures(self) -> dict[str, Any]:
        """As JSON."""
        kinds = {str(kind): counts.figures() for kind, counts in self.by_kind.items()}
        rows = {"rows": self.rows, "rows_identical": self.identical, "rows_unmatched": self.unmatched}
        sampled = {"sampled": self.sampled} if self.sampled else {}
        return {**rows, **self.whole.figures(), "by_kind": kinds, **sampled}


def compare(
    left: AnnotatedData, right: AnnotatedData, mask_a: str, mask_b: str, tokenizer: Any | None = None
) -> Comparison:
    """Compare column `mask_a` of `left`, A, with column `mask_b` of `right`, B; the two may be one data set.

    Args:
        left, right: the data sets.
        mask_a, mask_b: columns of weights.
        tokenizer: of the response tokens, to count by kind of token; None: no counts by kind.

    Raises:
        InputError: a column is missing, weights do not fit their tokens, or the two have different tokenizers.
    """
    left.require_weights(mask_a)
    right.require_weights(mask_b)
    require_one_tokenizer([left, right])
    unmatched: Counter[str] = Counter()
    partners = _partners(right, mask_b, unmatched)
    whole, by_kind, rows, identical = Agreement(), dict.fromkeys(Kind, Agreement()), 0, 0
    seen: set[str] = set()
    sampled, outcomes = SampledVerdicts(), [ALTERNATIVES] if SAMPLED in left.schema.names else []
    for row in Progress("masks compare", left.count()).over(left.rows([ID, RESPONSE_IDS, mask_a, *outcomes])):
        reason, critical_b = _partner(row, mask_a, partners, seen)
        if critical_b is None:
            unmatched[reason] += 1
            continue
        if outcomes:
            sampled.add(row)
        row_counts = agreement(row[mask_a], critical_b)
        rows, identical, whole = rows + 1, identical + (row_counts.only_a + row_counts.only_b == 0), whole + row_counts
        for kind, a, b in _by_kind(row, mask_a, critical_b, tokenizer):
            by_kind[kind] += agreement([a], [b])
    unmatched["only in B"] = len(partners.keys() - seen)
    kinds = {kind: counts for kind, counts in by_kind.items() if counts.tokens}
    left_out = {reason: count for reason, count in unmatched.items() if count}
    return Comparison(whole, kinds, rows, identical, left_out, sampled.figures())


def _partners(data: AnnotatedData, mask: str, unmatched: Counter[str]) -> dict[str, tuple[bytes, bytes | None]]:
    """By id: a digest of the response tokens, and which of them are critical (None if the row has no weights)."""
    partners: dict[str, tuple[bytes, bytes | None]] = {}
    for row in data.rows([ID, RESPONSE_IDS, mask]):
        if row[ID] in partners:
            unmatched["id occurs again in B"] += 1
            continue
        critical = None
        if row[mask] is not None:
            check_weights(row[ID], row[mask], row[RESPONSE_IDS], mask)
            critical = bytes(weight > 0 for weight in row[mask])
        partners[row[ID]] = digest(row[RESPONSE_IDS]), critical
    return partners


def _partner(
    row: Row, mask: str, partners: dict[str, tuple[bytes, bytes | None]], seen: set[str]
) -> tuple[str, bytes | None]:
    """The other mask of a row's tokens, or the reason why there is none. `seen` holds the ids of A so far."""
    if row[ID] in seen:
        return "id occurs again in A", None
    seen.add(row[ID])
    if row[ID] not in partners:
        return "only in A", None
    tokens, critical = partners[row[ID]]
    if tokens != digest(row[RESPONSE_IDS]):
        return "other response tokens", None
    if row[mask] is None:
        return "no weights in A", None
    check_weights(row[ID], row[mask], row[RESPONSE_IDS], mask)
    return "no weights in B", critical


def digest(token_ids: list[int]) -> bytes:
    """A hash of 16 bytes, equal for equal token ids."""
    return hashlib.sha256(repr(token_ids).encode()).digest()[:16]


def _by_kind(row: Row, mask: str, critical_b: bytes, tokenizer: Any | None) -> Iterator[tuple[Kind, float, int]]:
    if tokenizer is not None:
        for piece, a, b in zip(pieces(tokenizer, row[RESPONSE_IDS]), row[mask], critical_b, strict=True):
            yield piece.kind, a, b


def comparison_text(comparison: Comparison) -> str:
    """The figures as a table for a terminal."""
    lines = [f"rows compared       {comparison.rows}   ({comparison.identical} with equal masks)"]
    lines += [f"  not compared      {count}   ({reason})" for reason, count in comparison.unmatched.items()]
    counts = comparison.whole
    lines.append(f"tokens              {counts.tokens}")
    lines.append(f"critical            {counts.both} in both, {counts.only_a} only in A, {counts.only_b} only in B")
    head = ["", "tokens", "agreement", "kappa", "precision of B", "recall of B"]
    named = {"all": comparison.whole, **{str(kind): scores for kind, scores in comparison.by_kind.items()}}
    lines += ["", "".join(f"{cell:<16}" for cell in head).rstrip()]
    for name, scores in named.items():
        cells = [name, str(scores.tokens), *map(_cell, (scores.share, scores.kappa, scores.precision, scores.recall))]
        lines.append("".join(f"{cell:<16}" for cell in cells).rstrip())
    if comparison.sampled:
        lines += ["", verdicts_text(comparison.sampled)]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value + 0.0:.3f}".replace("-0.000", "0.000")
