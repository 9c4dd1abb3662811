"""In which tenth: a token of its response by position, and a response of all by its critical share."""

from __future__ import annotations

TENTHS = 10
SHARES = TENTHS + 1  # none at all, up to 10 %, up to 20 % ...


def of_position(index: int, length: int) -> int:
    """The tenth of a response of `length` tokens that the token at `index` is in, from 0."""
    return TENTHS * index // length


def of_share(critical: int, length: int) -> int:
    """0 for a response without a critical token, else the tenth, from 1, that its share is at most in."""
    return -(-TENTHS * critical // length)
