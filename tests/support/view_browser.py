"""Pages of the view in a real Chromium, opened from disk, with the network cut off and every complaint collected."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import view_data

from openrlhf_cft.cli import view
from openrlhf_cft.data.location import location

NAMES = ("chromium", "chromium-browser", "google-chrome")
HANG = 300_000  # milliseconds; a guard, since a busy machine only takes longer


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a window. Skips where there is none, and fails there in continuous integration."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        missing = "no Chromium to open the page in: install the package `chromium` (apt-get install chromium)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=HANG)
        try:
            yield launched
        finally:
            launched.close()


def make_pages(folder: Path) -> Path:
    """`hostile.html`, `weights.html` of its floats, and `pair.html` of it and a changed one; the data beside them."""
    made = view_data.tokenizer(folder / "tokenizer")
    stated = view_data.metadata(folder / "tokenizer", made)
    rows = view_data.hostile(made)
    view_data.write(folder / "hostile", rows, stated, texts=True)
    view_data.write(folder / "changed", view_data.changed(made, rows), stated, texts=True)
    hostile, changed = str(folder / "hostile"), str(folder / "changed")
    for name, arguments in (
        ("hostile", [hostile]),
        ("weights", [hostile, "--mask", "weights"]),
        ("pair", [hostile, changed]),
    ):
        assert view.main([*arguments, "--out", str(folder / f"{name}.html")]) == 0
    return folder


def ordinary_page(folder: Path, rows: int) -> Path:
    """The page of so many ordinary rows; 60 to 200 tokens each, with two alternatives a token."""
    made = view_data.tokenizer(folder / "tokenizer")
    path = folder / f"made-{rows}"
    view_data.write(path, view_data.ordinary(made, rows), view_data.metadata(folder / "tokenizer", made))
    view.main([str(path), "--out", f"{path}.html"])
    assert location(f"{path}.html").exists()
    return Path(f"{path}.html")


@contextmanager
def opened(launched: Any, path: Path, width: int = 1280, height: int = 900, **options: Any) -> Iterator[Any]:
    """A page, ready to use. Fails if it asked for anything but itself, or if the console said anything."""
    context = launched.new_context(viewport={"width": width, "height": height}, offline=True, **options)
    context.set_default_timeout(HANG)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    until(page, "document.documentElement.dataset.ready")
    try:
        yield page
        assert not said, said
        assert set(asked) == {path.as_uri()}
    finally:
        context.close()


def until(page: Any, condition: str, seconds: float = HANG / 1000) -> None:
    """Wait for a JavaScript expression to be true. The page's policy forbids Playwright's own way, which is `eval`."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never came true: {condition}"
        page.wait_for_timeout(20)


def token(page: Any, row: str, index: int, side: int = 0) -> Any:
    """The locator of one token, on the screen."""
    article = page.locator("article", has=page.locator("h3", has_text=row))
    article.scroll_into_view_if_needed()
    article.locator(".t").first.wait_for()  # made when the row comes near
    return article.locator(".tokens").nth(side).locator(".t").nth(index)


def card_text(page: Any) -> str:
    """What the card says, once it is there."""
    until(page, "!document.getElementById('card').hidden")
    return str(page.locator("#card").inner_text())


def shown_ids(page: Any) -> list[str]:
    """The ids of the rows that are shown, in their order."""
    return list(page.evaluate("[...document.querySelectorAll('article:not([hidden]) h3')].map((e) => e.textContent)"))
