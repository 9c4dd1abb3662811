"""README and docs/: their links lead to files and headings that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_readme import DOCS, REPOSITORY, TEXTS


def prose(text: str) -> str:
    """A page without its blocks and spans of code, which may hold brackets that are no links."""
    return re.sub(r"`[^`]*`", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#{1,6} (.*)", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(file: Path, text: str) -> list[str]:
    """The relative links of a page whose file, or whose heading, does not exist."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(text)) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    found = []
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (file.parent / name).resolve()
        known = not name or (linked.exists() and REPOSITORY in linked.parents)
        if not known or (anchor and anchor not in anchors(linked.read_text() if name else text)):
            found.append(target)
    return found


@pytest.mark.parametrize("name", TEXTS)
def test_its_links_lead_to_files_and_headings(name: str) -> None:
    assert not broken_links(REPOSITORY / name, TEXTS[name])


def test_broken_links_are_found() -> None:
    text = "# A b\n[a](gone.md) [b](masks.md#gone) [c](#a-b) [d](#gone) [e](https://gone) `[f](x)` [g](view.md#view)\n"
    assert broken_links(DOCS / "page.md", text) == ["gone.md", "masks.md#gone", "#gone"]


def test_each_page_is_linked_from_the_readme() -> None:
    for name in TEXTS:
        if name not in ("README.md", "docs/README.md"):  # the latter is the site's first page
            assert f"]({name})" in TEXTS["README.md"], name
