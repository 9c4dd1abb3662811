"""One Chromium, and the pages that the tests of the view look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from view_browser import browser, make_pages

from openrlhf_cft.data import records


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    with browser() as launched:
        yield launched


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pages(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="session")
def rows(pages: Path) -> list[dict[str, Any]]:
    return list(records.read_rows(pages / "hostile"))
