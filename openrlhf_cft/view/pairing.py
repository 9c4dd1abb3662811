"""Two data sets side by side: which rows belong together, and how far their masks agree.

Rows with the same id belong together. If an id has several responses, those with the same tokens are paired first.
Masks are compared if both sides hold the same tokens of the same tokenizer, as bits: whether a token has a weight.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from openrlhf_cft.data.annotated import AnnotatedData
from openrlhf_cft.data.records import ID
from openrlhf_cft.data.token_meaning import differing_roles
from openrlhf_cft.errors import InputError
from openrlhf_cft.masks.agreement import Agreement, agreement
from openrlhf_cft.view.model import ShownData, ShownResponse, read


@dataclass(frozen=True)
class Side:
    """A data set to read."""

    data: AnnotatedData
    tokenizer: Any  # from `data.tokenizer.tokenizer_of`
    mask: str  # the column of the weights


@dataclass(frozen=True)
class ShownPair:
    """One row of both data sets."""

    left: ShownResponse
    right: ShownResponse
    same: bool  # both have the same tokens, so their masks can be compared


@dataclass(frozen=True)
class Pairing:
    """Two data sets, matched."""

    left: ShownData
    right: ShownData
    pairs: list[ShownPair]
    matched: int  # rows of the whole data sets that have a partner
    only_left: int  # rows of the whole data sets without a partner in the other one
    only_right: int

    @property
    def agreement(self) -> Agreement:
        """The agreement of the two masks, over the pairs with the same tokens."""
        agreements = (agreement(pair.left.weights, pair.right.weights) for pair in self.pairs if pair.same)
        return sum(agreements, start=Agreement())


def read_pair(left: Side, right: Side, max_samples: int) -> Pairing:
    """Read the first rows that both data sets have.

    Raises:
        InputError: as `model.read`, or the two have no id in common.
    """
    ids = [Counter(str(row[ID]) for row in side.data.rows([ID])) for side in (left, right)]
    common = set(ids[0]) & set(ids[1])
    if not common:
        names = f"{left.data.name!r} and {right.data.name!r}"
        raise InputError(f"{names} have no row id in common, so there is nothing to show side by side")
    first = read(left.data, left.tokenizer, left.mask, max_samples, common)
    shown = {response.id for response in first.responses}
    second = read(right.data, right.tokenizer, right.mask, sum(ids[1][identity] for identity in shown), shown)
    only_left, only_right = (ids[0] - ids[1]).total(), (ids[1] - ids[0]).total()
    comparable = differing_roles(first.fingerprint, right.tokenizer) is not None
    return Pairing(first, second, match(first, second, comparable), (ids[0] & ids[1]).total(), only_left, only_right)


def match(left: ShownData, right: ShownData, comparable: bool) -> list[ShownPair]:
    """The responses of both that belong together, in the order of the left ones.

    Args:
        left: one data set.
        right: the other one.
        comparable: whether token ids mean the same in both, as for a base model and its instruct model.
    """
    waiting: dict[str, list[ShownResponse]] = defaultdict(list)
    for response in right.responses:
        waiting[response.id].append(response)
    partners: dict[int, ShownPair] = {}
    for same in (True, False):  # first all with the same tokens, so that no other response takes their partner
        for number, response in enumerate(left.responses):
            if number in partners:
                continue
            for candidate in waiting[response.id]:
                if not same or (comparable and candidate.token_ids == response.token_ids):
                    partners[number] = ShownPair(response, candidate, same)
                    waiting[response.id].remove(candidate)
                    break
    return [partners[number] for number in sorted(partners)]
