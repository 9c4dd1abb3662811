"""Characters that cannot be seen have marks, and all others are left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import tries

from openrlhf_cft import display


@tries(300)
@given(text=st.text(max_size=30))
def test_visible_text_has_nothing_hidden(text: str) -> None:
    shown = display.visible(text)
    assert not any(map(display.hidden, shown))
    assert "\x1b" not in shown
    assert display.visible(shown) == shown


MARKS = {
    "\x00": "␀",
    "\r": "␍",
    "\x1b": "␛",
    "\x7f": "␡",
    "\x85": "⟨U+0085⟩",
    "\u200d": "⟨U+200D⟩",
    "\u202e": "⟨U+202E⟩",
    "\u3164": "⟨U+3164⟩",
    "\ufeff": "⟨U+FEFF⟩",
    "\uffff": "⟨U+FFFF⟩",
    "\U000e0041": "⟨U+E0041⟩",
}


@pytest.mark.parametrize(("character", "mark"), MARKS.items())
def test_hidden_characters_have_marks(character: str, mark: str) -> None:
    assert display.hidden(character) and display.mark(character) == mark


def test_what_can_be_seen_is_left_alone() -> None:
    text = "Zwölf\n\tÄpfel, 数学, é, א, 🎉, \xa0½"
    assert display.visible(text) == text
