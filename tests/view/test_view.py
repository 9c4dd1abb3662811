"""The page of the view in Chromium: what is shown, the card, the keyboard, filters and order."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import view_data
from view_browser import card_text, opened, shown_ids, token, until

from openrlhf_cft import display
from openrlhf_cft.data.token_text import pieces

pytestmark = pytest.mark.slow


@pytest.fixture()
def page(chromium: Any, pages: Path) -> Iterator[Any]:
    with opened(chromium, pages / "hostile.html") as shown:
        yield shown


def test_hostile_text_is_shown_as_itself_and_does_nothing(page: Any, rows: list[dict[str, Any]]) -> None:
    made = view_data.FAMILIES["byte_level"]()
    for row in rows:
        token(page, row["id"], 0)  # scrolls there, which makes the tokens
        article = page.locator("article", has=page.locator("h3", has_text=row["id"]))
        found = article.locator(".t").evaluate_all("(tokens) => tokens.map((token) => token.textContent)")
        expected = pieces(made, row["response_token_ids"])
        assert found == [
            display.visible(piece.text) + ("�" if piece.partial else "∅" if not piece.text else "")
            for piece in expected
        ]
        assert article.locator(".question").text_content() == display.visible(row["question"])
    assert page.evaluate("window.hacked") is None
    assert page.locator("main :is(script, img, style, b, iframe)").count() == 0
    shown = page.evaluate(
        "document.body.innerText + [...document.querySelectorAll('[aria-label], [title]')]"
        ".map((e) => `${e.ariaLabel} ${e.title}`).join()"
    )
    assert not [character for character in shown if display.hidden(character)]


def test_bidirectional_marks_reorder_nothing(page: Any, rows: list[dict[str, Any]]) -> None:
    token(page, "bidi", 0)
    boxes = (
        page.locator("article", has=page.locator("h3", has_text="bidi"))
        .locator(".t")
        .evaluate_all("(tokens) => tokens.map((token) => token.getClientRects()[0]).map((box) => [box.top, box.left])")
    )
    lines: dict[int, list[float]] = {}
    for top, left in boxes:
        lines.setdefault(round(top / 12), []).append(left)
    assert all(line == sorted(line) for line in lines.values())
    right_to_left = page.locator("article", has=page.locator("h3", has_text="rtl")).locator(".tokens")
    assert right_to_left.evaluate("(tokens) => getComputedStyle(tokens).direction") == "rtl"


def check_card(page: Any, row: dict[str, Any], index: int) -> None:
    """The card shows the stored alternatives of a token, each with all that is known of it."""
    text = card_text(page)
    assert f"token {index + 1} of {len(row['response_token_ids'])}" in text
    stored = row["alternatives"][index]
    found = page.locator("#card tbody tr:not(.rollout)")
    assert found.count() == len(stored)
    for at, item in enumerate(stored):
        line = re.sub(r"\s+", " ", found.nth(at).inner_text())
        assert line.startswith(str(item["rank"]))
        percent = re.search(r"([\d.]+) % ", line)
        assert percent is not None
        assert float(percent[1]) / 100 == pytest.approx(math.exp(item["logprob"]), rel=0.06)
        if item["skipped"]:
            assert "not tried: the token was decided already" in line
        else:
            assert item["verdict"] in line
            assert ("cut off" if item["truncated"] else "ended") in line
            assert not item["rollout_length"] or f"{item['rollout_length']} token" in line
    texts = [item["text"] for item in stored if item["text"] is not None]
    assert page.locator("#card tr.rollout").all_text_contents() == [display.visible(text) for text in texts]


def test_hover_shows_the_alternatives_and_leaving_puts_them_away(page: Any, rows: list[dict[str, Any]]) -> None:
    for index in (3, 7):
        token(page, "script", index).hover()
        until(page, f"document.querySelector('.t.open')?.dataset.i === '{index}'")
        check_card(page, rows[0], index)
    page.locator("#card").hover()
    page.evaluate("new Promise((done) => setTimeout(done, 300))")  # after the page's own timer to put it away
    assert page.locator("#card").is_visible()  # the way into the card is no way out
    page.mouse.move(2, 2)
    until(page, "document.getElementById('card').hidden")


def test_the_arrow_keys_go_from_token_to_token(page: Any, rows: list[dict[str, Any]]) -> None:
    tokens = page.locator("article").first.locator(".t")
    last = len(rows[0]["response_token_ids"]) - 1
    assert page.locator("article").first.locator('.t[tabindex="0"]').count() == 1
    at = "Number(document.activeElement.dataset.i)"
    tokens.nth(0).focus()
    for key, expected in (
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("End", last),
        ("Home", 0),
        ("ArrowLeft", 0),
    ):
        page.keyboard.press(key)
        assert page.evaluate(at) == expected
        check_card(page, rows[0], expected)
        assert page.locator("article").first.locator('.t[tabindex="0"]').count() == 1
    until(page, "document.getElementById('live').textContent.startsWith('2 alternatives: rank 2, ')")
    page.keyboard.press("Escape")
    assert not page.locator("#card").is_visible()
    page.keyboard.press("Enter")
    assert page.locator("#card").is_visible() and page.evaluate("document.activeElement.id") == "card"
    page.keyboard.press("Escape")
    assert not page.locator("#card").is_visible() and page.evaluate(at) == 0
    page.set_viewport_size({"width": 420, "height": 900})
    tops = tokens.evaluate_all("(all) => all.map((token) => token.getClientRects()[0].top)")
    page.keyboard.press("ArrowDown")
    assert tops[page.evaluate(at)] > tops[0]
    page.keyboard.press("ArrowUp")
    assert tops[page.evaluate(at)] == tops[0]


def test_a_tap_shows_the_alternatives(chromium: Any, pages: Path, rows: list[dict[str, Any]]) -> None:
    with opened(chromium, pages / "hostile.html", 390, 844, has_touch=True, is_mobile=True) as page:
        token(page, "script", 4).tap()
        check_card(page, rows[0], 4)
        card, tapped = page.locator("#card").bounding_box(), token(page, "script", 4).bounding_box()
        assert card["y"] + card["height"] == pytest.approx(844, abs=1) and tapped["y"] + tapped["height"] <= card["y"]
        page.get_by_role("button", name="Close").tap()
        assert not page.locator("#card").is_visible()


def test_part_of_a_character_is_a_token_like_any_other(page: Any) -> None:
    first = token(page, "split", 0)
    assert first.text_content() == "�"
    first.focus()
    assert "part of 𐍈, which token 4 completes" in card_text(page)
    assert token(page, "split", 3).text_content() == "𐍈"


def test_letters_are_keys(page: Any, rows: list[dict[str, Any]]) -> None:
    critical = [(row["id"], at) for row in rows for at, bit in enumerate(row["critical_mask"]) if bit]
    at = "((e) => [e.closest('article').querySelector('h3').textContent, Number(e.dataset.i)])(document.activeElement)"
    for expected in critical[:30]:
        page.keyboard.press("n")
        assert tuple(page.evaluate(at)) == (display.visible(expected[0]), expected[1])
    page.keyboard.press("p")
    assert tuple(page.evaluate(at)) == critical[28]
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.tagName") == "ARTICLE"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("?nt")
    assert page.locator("#search").input_value() == "?nt"
    page.locator("#clear").click()
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.get_by_label("single letters are keys").uncheck()
    page.get_by_role("button", name="Close").click()
    assert page.locator("#help").get_attribute("open") is None
    page.keyboard.press("?")
    assert page.locator("#help").get_attribute("open") is None


def share(row: dict[str, Any]) -> float:
    return sum(row["critical_mask"]) / len(row["critical_mask"])


def length(row: dict[str, Any]) -> int:
    return len(row["critical_mask"])


def test_filters_keep_the_rows_that_fit(page: Any, rows: list[dict[str, Any]]) -> None:
    def expect(fits: Any) -> None:
        expected = [row["id"] for row in rows if fits(row)]
        assert shown_ids(page) == expected
        assert page.locator("#count").inner_text().startswith(f"{len(expected)} of {len(rows)} responses")
        page.locator("#clear").click()
        until(page, f"document.getElementById('count').textContent.startsWith('{len(rows)} of')")

    middle = sorted(map(share, rows))[len(rows) // 2]
    page.locator("#share-from").fill(str(100 * middle))
    expect(lambda row: share(row) >= middle)
    page.locator("#share-to").fill(str(100 * middle))
    expect(lambda row: share(row) <= middle)
    page.locator("#length-from").fill("40")
    page.locator("#length-to").fill("70")
    expect(lambda row: 40 <= length(row) <= 70)
    for verdict in ("correct", "wrong", "unparsable", "truncated", "timeout"):
        page.locator("#verdict").select_option(label=verdict)
        expect(lambda row, verdict=verdict: any(a["verdict"] == verdict for p in row["alternatives"] for a in p))
    for wanted, ids in (
        ("<SCRIPT>window", ["script"]),
        ("&amp;", ["entities"]),
        ("數學", ["split"]),
        ("unse", ["unseen"]),
    ):
        page.locator("#search").fill(wanted)
        expect(lambda row, ids=ids: row["id"] in ids)
    page.locator("#search").fill("no such thing")
    assert page.locator("#nothing").is_visible() and shown_ids(page) == []
    page.locator("#nothing-clear").click()
    until(page, "document.getElementById('nothing').hidden")
    assert shown_ids(page) == [row["id"] for row in rows]


def test_rows_can_be_sorted(page: Any, rows: list[dict[str, Any]]) -> None:
    keys = {
        "share": share,
        "length": length,
        "critical": lambda row: sum(row["critical_mask"]),
        "id": lambda row: row["id"],
    }
    for key, value in keys.items():
        page.locator("#sort").select_option(key)
        assert shown_ids(page) == [row["id"] for row in sorted(rows, key=value)]
        page.locator("#direction").click()
        assert shown_ids(page) == [row["id"] for row in sorted(rows, key=value, reverse=True)]
        page.locator("#direction").click()


def test_the_theme_follows_the_system_and_the_button(chromium: Any, pages: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(chromium, pages / "hostile.html", color_scheme="light") as page:
        light = page.evaluate(ground)
        page.get_by_role("button", name="Switch to the dark theme").click()
        dark = page.evaluate(ground)
        page.reload()
        until(page, "document.documentElement.dataset.ready")
        assert page.evaluate(ground) == dark != light
        page.keyboard.press("t")
        assert page.evaluate(ground) == light
    with opened(chromium, pages / "hostile.html", color_scheme="dark") as page:
        assert page.evaluate(ground) == dark
