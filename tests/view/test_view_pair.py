"""The page of the view in Chromium: two data sets side by side, and weights other than 0 and 1."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from view_browser import card_text, opened, shown_ids, token

from openrlhf_cft.data import records

pytestmark = pytest.mark.slow


def test_two_data_sets_are_side_by_side(chromium: Any, pages: Path, rows: list[dict[str, Any]]) -> None:
    right = {row["id"]: row for row in records.read_rows(pages / "changed")}
    with opened(chromium, pages / "pair.html") as page:
        assert page.locator("h1").inner_text() == "hostile against changed"
        both = [row for row in rows if row["id"] in right]
        assert shown_ids(page) == [row["id"] for row in both]
        compared = same = 0
        for row in both:
            token(page, row["id"], 0)
            sides = page.locator("article", has=page.locator("h3", has_text=row["id"])).locator(".tokens")
            pair = [row, right[row["id"]]]
            alike = pair[0]["response_token_ids"] == pair[1]["response_token_ids"]
            expected = [
                at for at, bit in enumerate(row["critical_mask"]) if alike and bit != pair[1]["critical_mask"][at]
            ]
            for side, other in enumerate(pair):
                states = (
                    sides.nth(side)
                    .locator(".t")
                    .evaluate_all("(all) => all.map((t) => [Boolean(t.dataset.l), t.classList.contains('differs')])")
                )
                assert [float(marked) for marked, _ in states] == other["critical_mask"]
                assert [at for at, (_, differs) in enumerate(states) if differs] == expected
            compared, same = (
                compared + alike * len(row["critical_mask"]),
                same + alike * (len(row["critical_mask"]) - len(expected)),
            )
        figures = page.locator("#figures").inner_text()
        assert f"{100 * same / compared:.1f} %" in figures and "Cohen’s kappa" in figures
        facts = page.locator("#facts").inner_text()
        assert (
            "1 row only in hostile" in facts
            and "1 row only in changed" in facts
            and "1 row with other tokens" in facts
        )
        page.evaluate("scrollTo(0, 0)")
        page.keyboard.press("d")
        assert "differs" in page.evaluate("document.activeElement.className")
        assert re.search(r"hostile.*critical.*changed.*critical", card_text(page), re.DOTALL)
        page.keyboard.press("Escape")
        page.get_by_role("checkbox", name="masks differ").check()
        assert "slots" not in shown_ids(page) and len(shown_ids(page)) == len(both) - 1


def test_weights_are_marked_by_their_size(chromium: Any, pages: Path, rows: list[dict[str, Any]]) -> None:
    largest = max(weight for row in rows for weight in row["weights"])
    with opened(chromium, pages / "weights.html") as page:
        token(page, "script", 0)
        levels = (
            page.locator("article")
            .first.locator(".t")
            .evaluate_all("(all) => all.map((t) => Number(t.dataset.l ?? 0))")
        )
        wanted = [max(1, math.ceil(5 * weight / largest - 1e-3)) if weight else 0 for weight in rows[0]["weights"]]
        assert levels == wanted
        index = next(at for at, weight in enumerate(rows[0]["weights"]) if weight)
        token(page, "script", index).focus()
        assert f"weight {rows[0]['weights'][index]:.4g}" in card_text(page)
