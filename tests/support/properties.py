"""How many examples a property test tries: a few in `make test`, many in `make test-all`, which searches.

    @tries(60)               # in the place of hypothesis' `settings(max_examples=60)`
    @given(text=st.text())
    def test_...

`make test` derives its examples from the test itself, so every run tries the same ones and passes or fails as the last
one did. With HYPOTHESIS_PROFILE=search each run tries `MORE` times as many new ones. After a failure `make test-all`
prints the `@example` to add, and the command that adds it, so that every later run tries it too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import settings

SEARCHES = os.environ.get("HYPOTHESIS_PROFILE") == "search"
MORE = 25


def tries(number: int) -> Callable[[Any], Any]:
    """The settings of a property test that tries `number` examples in `make test`."""
    if SEARCHES:
        return settings(max_examples=MORE * number, deadline=None, print_blob=True, derandomize=False)
    return settings(max_examples=number, deadline=None, derandomize=True, database=None)
