"""Tenths: which one a token is in by its position in the response, and a response by its critical share."""

from __future__ import annotations

TENTHS = 10
SHARES = TENTHS + 1  # exactly 0 %, up to 10 %, up to 20 % ...


def of_position(index: int, length: int) -> int:
    """The tenth of a response of `length` tokens that the token at `index` is in, from 0."""
    return TENTHS * index // length


def of_share(critical: int, length: int) -> int:
    """0 for a response without a critical token, else the tenth of its share: 1 up to 10 %, 2 up to 20 % ..."""
    return -(-TENTHS * critical // length)
