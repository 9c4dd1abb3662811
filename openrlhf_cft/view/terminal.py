"""Annotated responses as text, for a shell and for a log: the same as on the page, in one column.

Marked tokens are bold red on a terminal, and between brackets in a log. Weights other than 0 and 1 are printed. Below
each response, a line for each marked token shows its alternatives. Text that a model wrote cannot act on the terminal
(`display.visible`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import groupby

from openrlhf_cft.data.records import Alternative
from openrlhf_cft.data.token_text import Piece
from openrlhf_cft.display import visible
from openrlhf_cft.view.facts import facts, hints, selection
from openrlhf_cft.view.model import Counterfactual, ShownData, ShownResponse
from openrlhf_cft.view.pairing import Pairing
from openrlhf_cft.view.summary import Cost, OftenCritical, Share, Summary, responses_summary

OFTEN = 10  # tokens that are listed
BAR = 30  # characters of the longest bar
NOTHING = "�"  # in the place of marked tokens that complete no character
Marks = tuple[str, str]


def terminal_text(shown: ShownData | Pairing, marks: Marks) -> str:
    """The whole text, for one data set or for two side by side.

    Args:
        shown: the data that were read.
        marks: the texts that open and close a run of marked tokens.
    """
    return "\n".join(_one(shown, marks) if isinstance(shown, ShownData) else _two(shown, marks))


def _one(data: ShownData, marks: Marks) -> Iterator[str]:
    yield from _head(data, data.responses, marks)
    for response in data.responses:
        yield from ["", f"{visible(response.id)}   {_row_facts(response, data)}", *_question(response)]
        yield from _body(response, data, marks)
    if len(data.responses) + data.without_mask < data.total:
        read = len(data.responses) + data.without_mask
        yield f"\nthe first {read} of {data.total} rows; --data.max_samples shows more"


def _two(pairing: Pairing, marks: Marks) -> Iterator[str]:
    sides = (
        ("A", pairing.left, [p.left for p in pairing.pairs]),
        ("B", pairing.right, [p.right for p in pairing.pairs]),
    )
    for letter, data, responses in sides:
        yield f"{letter}: " + "\n".join(_head(data, responses, marks))
    counts = pairing.agreement
    share = "nothing to compare" if counts.share is None else f"{counts.share:.1%} of {counts.tokens} tokens"
    kappa = "undefined" if counts.kappa is None else f"{counts.kappa:.3f}"
    yield f"\nthe masks agree: {share}, Cohen's kappa {kappa}; only in A {counts.only_a}, only in B {counts.only_b}"
    if len(pairing.pairs) < pairing.matched:
        yield f"the first {len(pairing.pairs)} of {pairing.matched} matched rows; --data.max_samples shows more"
    yield f"rows only in A {pairing.only_left}, only in B {pairing.only_right}"
    for pair in pairing.pairs:
        note = "" if pair.same else "   other tokens"
        yield from ["", f"{visible(pair.left.id)}{note}", *_question(pair.left)]
        for letter, data, response in (("A", pairing.left, pair.left), ("B", pairing.right, pair.right)):
            yield f"  {letter}  {_row_facts(response, data)}"
            yield from _body(response, data, marks)


def _head(data: ShownData, responses: list[ShownResponse], marks: Marks) -> Iterator[str]:
    """The data set and its summary."""
    summary = responses_summary(responses)
    share = summary.all.critical / summary.all.tokens if summary.all.tokens else 0.0
    yield f"{visible(data.name)}: {summary.rows} responses, {summary.all.tokens} tokens, {share:.1%} marked"
    yield visible(", ".join(f"{name} {value}" for name, value in facts(data)))
    yield f"{marks[0]}Marked{marks[1]}: {selection(data)}"
    yield from (f"hint: {hint}" for hint in hints(data, summary))
    if data.without_mask:
        yield f"left out: {data.without_mask} rows without a mask"
    yield from _summary(summary, data)


def _summary(summary: Summary, data: ShownData) -> Iterator[str]:
    measure = "share of critical tokens" if data.binary else "mean weight"
    for title, shares in (("kind of token", summary.kinds), ("place in the response", summary.places)):
        yield f"\n{measure} by {title}"
        yield from _bars(shares, percent=data.binary)
    yield "\nresponses by their share of marked tokens"
    labels = ["none", *(f"to {10 * step} %" for step in range(1, len(summary.spread)))]
    longest = max(summary.spread, default=0) or 1
    for label, rows in zip(labels, summary.spread, strict=True):
        yield f"  {label:<12} {rows:>6}  {_bar(rows / longest)}"
    if summary.often:
        yield f"\ntokens that are most often {'critical' if data.binary else 'weighted'}, and their alternatives there"
        yield from map(_often, summary.often[:OFTEN])
    if summary.cost is not None:
        yield f"\n{_cost(summary.cost)}"
    if data.job.get("seconds"):
        yield f"the whole job: {data.job['decoded_tokens']} decoded tokens, {data.job['seconds']:.1f} s"


def _bars(shares: list[Share], percent: bool) -> Iterator[str]:
    largest = max((share.mean or 0.0 for share in shares), default=0.0) or 1.0
    for share in shares:
        value = "none" if share.mean is None else f"{share.mean:.0%}" if percent else f"{share.mean:.3g}"
        yield f"  {share.label:<12} {value:>6}  {_bar((share.mean or 0.0) / largest):<{BAR}}  of {share.tokens}"


def _often(item: OftenCritical) -> str:
    others = ", ".join(f"{_quoted(text or NOTHING)} {count}" for text, count in item.alternatives)
    return f"  {_quoted(item.text or NOTHING):<12} {item.critical:>6} of {item.tokens:<6} {others}".rstrip()


def _bar(share: float) -> str:
    return "█" * round(BAR * share)


def _cost(cost: Cost) -> str:
    verdicts = ", ".join(f"{number} {verdict}" for verdict, number in cost.verdicts.items())
    return (
        f"{cost.positions} positions, {cost.rollouts} rollouts ({verdicts}), {cost.truncated} cut off, "
        f"{cost.skipped} alternatives not tried: already decided; {cost.decoded} tokens decoded in rollouts"
    )


def _question(response: ShownResponse) -> list[str]:
    return [f"  {line}" for line in visible(response.question).splitlines()]


def _row_facts(response: ShownResponse, data: ShownData) -> str:
    length = len(response.weights)
    parts = [f"{response.critical} of {length} tokens {'critical' if data.binary else 'weighted'}"]
    if response.answer is not None:
        parts.append(f"answer {visible(response.answer)}")
    if response.gold not in (None, response.answer):
        parts.append(f"gold {visible(str(response.gold))}")
    return ", ".join(parts)


def _body(response: ShownResponse, data: ShownData, marks: Marks) -> Iterator[str]:
    """The response, and a line for each marked token that has alternatives."""
    yield from (f"    {line}" for line in _marked(response, data, marks).splitlines())
    for piece, weight, alternatives in zip(response.pieces, response.weights, response.counterfactuals, strict=True):
        if weight > 0 and alternatives:
            yield f"      {_quoted(piece.text or NOTHING)} → {'; '.join(map(_alternative, alternatives))}"


def _marked(response: ShownResponse, data: ShownData, marks: Marks) -> str:
    """The text with marks around each run of tokens of one weight above 0."""
    parts = []
    for weight, run in groupby(zip(response.weights, response.pieces, strict=True), key=lambda pair: pair[0]):
        text = _text(piece for _, piece in run)
        note = "" if data.binary else f"|{weight:.3g}"
        parts.append(f"{marks[0]}{text or NOTHING}{note}{marks[1]}" if weight > 0 else text)
    return "".join(parts)


def _text(run: Iterable[Piece]) -> str:
    return visible("".join(piece.text for piece in run))


def _quoted(text: str) -> str:
    return f"“{visible(text)}”".replace("\n", "↵").replace("\t", "⇥")


def _alternative(counterfactual: Counterfactual) -> str:
    item = counterfactual.alternative
    text = _quoted(counterfactual.text or counterfactual.name or NOTHING)
    return f"{item.rank}. {text} {math.exp(item.logprob):.2g} {_outcome(item)}"


def _outcome(item: Alternative) -> str:
    if item.skipped:
        return "not tried"
    score = "" if item.score in (None, 0, 1) else f", score {item.score:.3g}"
    end = "cut off after" if item.truncated else "after"
    samples = f", {item.sampled.correct} of {item.sampled.count} samples correct" if item.sampled else ""
    return f"{item.verdict}{score} ({end} {item.rollout_length} tokens{samples})"
