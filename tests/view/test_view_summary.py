"""The summary of a data set against counting by a plain loop."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from view_data import load

from openrlhf_cft.data import records
from openrlhf_cft.data.token_text import Kind
from openrlhf_cft.view.summary import responses_summary


def test_the_summary_counts_what_a_plain_loop_counts(folder: Path) -> None:
    responses = load(folder / "hostile").responses
    found = responses_summary(responses)
    tokens = [
        (piece.kind, 10 * at // len(response.pieces), weight)
        for response in responses
        for at, (piece, weight) in enumerate(zip(response.pieces, response.weights, strict=True))
    ]
    assert (found.all.tokens, found.all.critical) == (len(tokens), sum(w > 0 for *_, w in tokens))
    for kind in Kind:
        (share,) = [item for item in found.kinds if item.label == kind.value]
        assert (share.tokens, share.critical) == (
            sum(k is kind for k, *_ in tokens),
            sum(k is kind and w > 0 for k, _, w in tokens),
        )
    for part, share in enumerate(found.places):
        assert share.tokens == sum(p == part for _, p, _ in tokens)
        assert share.weight == sum(w for _, p, w in tokens if p == part)
    assert sum(found.spread) == len(responses)
    assert found.spread[0] == sum(response.critical == 0 for response in responses)
    stored = [a for row in records.read_rows(folder / "hostile") for p in row["alternatives"] for a in p]
    assert found.cost is not None
    assert found.cost.rollouts == sum(not a["skipped"] for a in stored)
    assert found.cost.skipped == sum(a["skipped"] for a in stored)
    assert found.cost.decoded == sum(a["rollout_length"] for a in stored)
    assert sum(found.cost.verdicts.values()) == found.cost.rollouts


def test_the_most_critical_tokens_are_those_that_a_plain_loop_finds(folder: Path) -> None:
    shown = load(folder / "hostile")
    places: dict[int, list[tuple[float, list[str]]]] = {}
    for response in shown.responses:
        for i, token in enumerate(response.token_ids):
            others = [item.text or item.name or "" for item in response.counterfactuals[i]]
            places.setdefault(token, []).append((response.weights[i], others))
    critical = {token: [others for weight, others in found if weight] for token, found in places.items()}
    found = responses_summary(shown.responses).often
    counts = sorted((len(c) for c in critical.values() if c), reverse=True)
    assert found and [item.critical for item in found] == counts[: len(found)]
    for item in found:
        alike = [
            token
            for token, others in critical.items()
            if len(others) == item.critical and len(places[token]) == item.tokens
        ]
        said = [Counter(text for one in critical[token] for text in one) for token in alike]
        assert any(all(c[text] == count for text, count in item.alternatives) for c in said)
        assert [count for _, count in item.alternatives] == sorted((c for _, c in item.alternatives), reverse=True)
