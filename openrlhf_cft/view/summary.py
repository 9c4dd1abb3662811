"""Figures over all rows of a data set: where the weight lies, how it is spread over rows, what it cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from openrlhf_cft.data.tenths import SHARES, TENTHS, of_position, of_share
from openrlhf_cft.data.token_text import Kind
from openrlhf_cft.view.model import ShownResponse

MOST_OFTEN, MOST_ALTERNATIVES = 20, 4  # how many tokens, and alternatives of each, are listed


@dataclass(frozen=True)
class Share:
    """The counts and weights of some of the tokens."""

    label: str
    tokens: int
    critical: int  # those that have a weight
    weight: float  # the sum of all weights

    @property
    def mean(self) -> float | None:
        """The mean weight; for a mask of 0 and 1, it is the critical share. None if there are no tokens."""
        return self.weight / self.tokens if self.tokens else None


@dataclass(frozen=True)
class Cost:
    """The cost of the rows that are shown. It is not known if the data set has no alternatives."""

    positions: int  # tokens with an alternative
    rollouts: int  # alternatives that were tried
    skipped: int  # not tried, because the token was decided already
    truncated: int  # rollouts that ran out of tokens
    decoded: int  # tokens that rollouts generated
    verdicts: dict[str, int]  # of the rollouts


@dataclass(frozen=True)
class OftenCritical:
    """A token of the vocabulary that has a weight at many places."""

    text: str  # its characters; its name if it has none
    critical: int  # places where it has a weight
    tokens: int  # all places where it stands
    alternatives: list[tuple[str, int]]  # the most frequent ones at these places, the most frequent first, with counts


@dataclass(frozen=True)
class Summary:
    """The figures of all responses that are shown."""

    rows: int
    all: Share
    kinds: list[Share]  # those that occur, the most frequent first
    places: list[Share]  # by position, in tenths of the response
    spread: list[int]  # rows by their critical share: none at all, then up to 10 %, up to 20 % ...
    lengths: tuple[int, int, int]  # the shortest, the median and the longest response, in tokens
    often: list[OftenCritical]  # the tokens that have a weight most often, the most frequent first
    cost: Cost | None


def responses_summary(responses: Sequence[ShownResponse]) -> Summary:
    """The summary of some responses; one without a token adds nothing."""
    kinds: dict[str, list[float]] = defaultdict(list)
    places: dict[int, list[float]] = {part: [] for part in range(TENTHS)}
    spread = [0] * SHARES
    for response in responses:
        length = len(response.weights)
        for index, (piece, weight) in enumerate(zip(response.pieces, response.weights, strict=True)):
            kinds[piece.kind.value].append(weight)
            places[of_position(index, length)].append(weight)
        if length:
            spread[of_share(response.critical, length)] += 1
    by_kind = [_share(kind.value, kinds[kind.value]) for kind in Kind if kinds[kind.value]]
    by_place = [_share(f"{10 * part}–{10 * part + 10} %", places[part]) for part in places]
    lengths = sorted(len(response.weights) for response in responses) or [0]
    return Summary(
        rows=len(responses),
        all=_share("all", [weight for response in responses for weight in response.weights]),
        kinds=sorted(by_kind, key=lambda share: -share.tokens),
        places=by_place,
        spread=spread,
        lengths=(lengths[0], lengths[len(lengths) // 2], lengths[-1]),
        often=_often(responses),
        cost=_cost(responses),
    )


def _often(responses: Sequence[ShownResponse]) -> list[OftenCritical]:
    tokens: Counter[int] = Counter()
    critical: Counter[int] = Counter()
    texts: dict[int, str] = {}
    others: dict[int, Counter[str]] = defaultdict(Counter)
    for response in responses:
        tokens.update(response.token_ids)
        columns = (response.token_ids, response.weights, response.pieces, response.names, response.counterfactuals)
        for token, weight, piece, name, alternatives in zip(*columns, strict=True):
            if weight > 0:
                critical[token] += 1
                texts.setdefault(token, piece.text or name or "")
                others[token].update(item.text or item.name or "" for item in alternatives)
    ordered = sorted(critical, key=lambda token: (-critical[token], tokens[token], token))
    return [
        OftenCritical(texts[token], critical[token], tokens[token], others[token].most_common(MOST_ALTERNATIVES))
        for token in ordered[:MOST_OFTEN]
    ]


def _share(label: str, weights: Sequence[float]) -> Share:
    return Share(label, len(weights), sum(weight > 0 for weight in weights), sum(weights))


def _cost(responses: Sequence[ShownResponse]) -> Cost | None:
    positions = [position for response in responses for position in response.counterfactuals if position]
    if not positions:
        return None
    every = [item.alternative for position in positions for item in position]
    tried = [alternative for alternative in every if not alternative.skipped]
    verdicts = Counter(alternative.verdict.value for alternative in tried if alternative.verdict is not None)
    return Cost(
        positions=len(positions),
        rollouts=len(tried),
        skipped=len(every) - len(tried),
        truncated=sum(alternative.truncated for alternative in tried),
        decoded=sum(alternative.rollout_length for alternative in tried),
        verdicts=dict(verdicts.most_common()),
    )
