"""`masks stats`: which tokens are critical, by their kind, their place and their row, and how alternatives ended.

A token counts as critical if its weight is above 0. Figures that were not measured are absent.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

from openrlhf_cft.data.annotated import AnnotatedData, Row
from openrlhf_cft.data.records import ALTERNATIVES, ID, RESPONSE_IDS, check_weights
from openrlhf_cft.data.tenths import SHARES, TENTHS, of_position, of_share
from openrlhf_cft.data.token_text import Kind, pieces
from openrlhf_cft.progress import Progress

QUANTILES = {"least": 0.0, "quarter": 0.25, "median": 0.5, "three_quarters": 0.75, "largest": 1.0}
SKIPPED = "skipped"
BAR = 30  # columns of a full bar


class Stats:
    """Counts over rows. Only one number per row stays in memory.

    Args:
        mask: the column of weights.
        tokenizer: of the response tokens, to count by kind; None: no counts by kind.
    """

    def __init__(self, mask: str, tokenizer: Any | None = None) -> None:
        self._mask, self._tokenizer = mask, tokenizer
        self._rows: Counter[str] = Counter()
        self._weights = 0.0
        self._tokens: Counter[Any] = Counter()  # all, by where they are counted: "all", a kind, a bin, first, last
        self._critical: Counter[Any] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._shares = array("d")  # of each row that has tokens
        self._rows_by_share = [0] * SHARES

    def add(self, row: Row) -> None:
        """Count one row.

        Raises:
            InputError: its weights do not fit its tokens.
        """
        self._rows["rows"] += 1
        if row[self._mask] is None:
            self._rows["rows_without_weights"] += 1
            return
        check_weights(row[ID], row[self._mask], row[RESPONSE_IDS], self._mask)
        critical = [weight > 0 for weight in row[self._mask]]
        self._weights += sum(row[self._mask])
        self._rows["rows_without_critical_token"] += not any(critical)
        if critical:
            self._shares.append(sum(critical) / len(critical))
            self._rows_by_share[of_share(sum(critical), len(critical))] += 1
        for index, critical_token in enumerate(critical):
            self._count(critical_token, "all", of_position(index, len(critical)))
        for name, index in (("first", 0), ("last", -1)):
            self._count(critical[index], name) if critical else None
        if self._tokenizer is not None:
            for piece, critical_token in zip(pieces(self._tokenizer, row[RESPONSE_IDS]), critical, strict=True):
                self._count(critical_token, piece.kind)
        for position in row.get(ALTERNATIVES) or []:
            self._verdicts.update(SKIPPED if a["skipped"] else a["verdict"] for a in position)

    def _count(self, critical: bool, *keys: Any) -> None:
        self._tokens.update(keys)
        if critical:
            self._critical.update(keys)

    def figures(self) -> dict[str, Any]:
        """All counts, as JSON."""
        figures: dict[str, Any] = {
            "column": self._mask,
            "rows": self._rows["rows"],
            "rows_without_weights": self._rows["rows_without_weights"],
            "rows_without_critical_token": self._rows["rows_without_critical_token"],
            **self._share_of("all"),
            "weights_sum": self._weights,
            "by_position": [self._share_of(part) for part in range(TENTHS)],
            "first_token": self._share_of("first"),
            "last_token": self._share_of("last"),
            "shares_of_rows": _distribution(self._shares),
            "rows_by_share": self._rows_by_share,
        }
        if self._tokenizer is not None:
            figures["by_kind"] = {str(kind): self._share_of(kind) for kind in Kind if self._tokens[kind]}
        if self._verdicts:
            figures["verdicts_of_alternatives"] = dict(self._verdicts.most_common())
        return figures

    def _share_of(self, key: Any) -> dict[str, Any]:
        tokens, critical = self._tokens[key], self._critical[key]
        counts = {"tokens": tokens, "critical_tokens": critical}
        return {**counts, "critical_share": critical / tokens} if tokens else counts


def stats(data: AnnotatedData, mask: str, tokenizer: Any | None = None) -> dict[str, Any]:
    """`Stats.figures` of a data set.

    Raises:
        InputError: there is no such column, or weights do not fit their tokens.
    """
    data.require_weights(mask)
    counts = Stats(mask, tokenizer)
    columns = [ID, RESPONSE_IDS, mask, ALTERNATIVES]
    for row in Progress("masks stats", data.count()).over(data.rows(columns)):
        counts.add(row)
    return counts.figures()


def _distribution(shares: Sequence[float]) -> dict[str, Any]:
    """The mean and quantiles. A quantile between two rows is interpolated."""
    ordered = sorted(shares)
    if not ordered:
        return {}
    figures: dict[str, Any] = {"mean": sum(ordered) / len(ordered)}
    for name, q in QUANTILES.items():
        place = q * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        figures[name] = ordered[low] + (place - low) * (ordered[high] - ordered[low])
    return figures


def stats_text(figures: dict[str, Any]) -> str:
    """The figures as a table for a terminal."""
    without = f"{figures['rows_without_critical_token']} without a critical token"
    if figures["rows_without_weights"]:
        without += f", {figures['rows_without_weights']} without weights"
    lines = [f"column              {figures['column']}", f"rows                {figures['rows']}   ({without})"]
    lines += [f"response tokens     {figures['tokens']}", f"sum of weights      {figures['weights_sum']:g}"]
    lines.append(_line("critical", figures))
    if "by_kind" in figures:
        lines += ["", *(_line(kind, counts) for kind, counts in figures["by_kind"].items())]
    places = [_line("first token", figures["first_token"])]
    places += [
        _line(f"{10 * part} to {10 * part + 10} %", counts) for part, counts in enumerate(figures["by_position"])
    ]
    lines += ["", *places, _line("last token", figures["last_token"])]
    rows = figures["shares_of_rows"]
    if rows:
        quantiles = ", ".join(f"{name.replace('_', ' ')} {rows[name]:.0%}" for name in QUANTILES)
        lines += ["", f"rows' shares        {quantiles}"]
    if "verdicts_of_alternatives" in figures:
        verdicts = ", ".join(f"{count} {name}" for name, count in figures["verdicts_of_alternatives"].items())
        lines += ["", f"alternatives        {verdicts}"]
    return "\n".join(lines)


def _line(name: str, counts: dict[str, Any]) -> str:
    """`digits   120 of 300   40.0%  ############`."""
    if "critical_share" not in counts:
        return f"{name:<19} no token"
    share = counts["critical_share"]
    of = f"{counts['critical_tokens']} of {counts['tokens']}"
    return f"{name:<19} {of:<18} {share:>6.1%}  {'#' * round(BAR * share)}".rstrip()
