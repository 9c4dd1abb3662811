"""A pool whose verifier can be made to meet its limits."""

import pytest
from slow_verifier import NAME

from openrlhf_cft.verify.sandbox import VerifierPool


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(NAME, workers=2, time_limit=1.0, memory_limit=1 << 29) as pool:
        pool.judge_all([("1", "1")])
        yield pool
