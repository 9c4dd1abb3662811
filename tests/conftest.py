"""Fixtures that tests of several folders ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openrlhf_cft.log import PACKAGE


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Models of a test's size only wait for a second thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def logs_as_a_library() -> Iterator[None]:
    """A command that runs inside a test shows what is logged; the next test sees the package as others import it."""
    yield
    PACKAGE.handlers.clear()
    PACKAGE.propagate = True
    PACKAGE.setLevel("NOTSET")
