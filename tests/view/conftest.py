"""One Chromium, and the pages that the tests of the view look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import view_data
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


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets: `hostile`, with texts of rollouts and a column of floats; `changed`, in which some masks differ."""
    root = tmp_path_factory.mktemp("view")
    made = view_data.tokenizer(root / "tokenizer")
    rows = view_data.hostile(made)
    stated = view_data.metadata(root / "tokenizer", made)
    view_data.write(root / "hostile", rows, stated, texts=True)
    view_data.write(root / "changed", view_data.changed(made, rows), stated, texts=True)
    return root
