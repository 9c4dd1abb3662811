"""Count what a transfer has carried: rows, critical tokens, and how far the masks of both sides agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from openrlhf_cft.masks.agreement import Agreement, agreement
from openrlhf_cft.masks.carry import Layout, gather, spread


@dataclass
class Coverage:
    """Counts over rows."""

    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # rows, by reason
    critical: int = 0  # source tokens with a weight above 0, those of dropped rows included
    carried: int = 0  # of these, the ones that share a character with a target token of a weight above 0
    # The source mask is A, the target's is B. The end counts as one more character. With the same tokenizer each token
    # counts as one character.
    characters: Agreement = field(default_factory=Agreement)
    tokens: Agreement = field(default_factory=Agreement)  # target tokens: the mask by characters is A, by score is B

    def add(self, source: Layout, before: Sequence[float], target: Layout, after: Sequence[float]) -> None:
        """Count one row's weights on both sides."""
        self.rows += 1
        there = spread(target, after)
        self.critical += sum(weight > 0 for weight in before)
        both = zip(before, gather(there, source), strict=True)
        self.carried += sum(old > 0 and new > 0 for old, new in both)
        ends = len(source.text) + source.ended
        self.characters += agreement(spread(source, before)[:ends], there[:ends])

    def figures(self) -> dict[str, Any]:
        """All counts and figures, as JSON."""
        figures: dict[str, Any] = {"rows": self.rows, "rows_dropped": dict(self.dropped)}
        figures |= {"critical_tokens": self.critical, "critical_tokens_carried": self.carried}
        if self.critical:
            figures["coverage"] = self.carried / self.critical
        figures["characters"] = self.characters.figures()
        if self.tokens.tokens:
            figures["score_against_characters"] = self.tokens.figures()
        return figures


def transfer_text(figures: dict[str, Any]) -> str:
    """The figures as lines for a terminal."""
    lines = [f"method              {figures['method']}"]
    if figures["same_tokenizer"]:
        lines.append("tokenizer           the same, token ids are reused")
    lines.append(f"rows carried        {figures['rows']}")
    lines += [f"  left out          {count}   ({reason})" for reason, count in figures["rows_dropped"].items()]
    of = f"{figures['critical_tokens_carried']} of {figures['critical_tokens']} critical tokens"
    lines.append(f"coverage            {_percent(figures.get('coverage'))}   ({of})")
    same = figures["same_tokenizer"]
    lines.append(
        f"{'tokens' if same else 'characters':<19} {_agreement(figures['characters'])}, between the two masks"
    )
    if "score_against_characters" in figures and not same:
        lines.append(f"tokens              {_agreement(figures['score_against_characters'])}, with the other method")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _agreement(counts: dict[str, Any]) -> str:
    kappa = f"{counts['kappa']:.3f}" if "kappa" in counts else "-"
    return f"{_percent(counts.get('agreement'))} agreement, kappa {kappa}"
