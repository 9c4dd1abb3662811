"""Text that a model wrote, shown to people: nothing in it acts on what shows it, and nothing in it is invisible.

A response may hold characters that reorder a line, erase it, ring a bell or cannot be seen. `visible` replaces each by
a mark, for a terminal and a log; the HTML page does the same with the same `mark` and `name`. The rest is what all
commands that show tokens share: the marks around them, and text that standard output can encode.
"""

from __future__ import annotations

import sys
import unicodedata

BRACKETS = ("⟦", "⟧")
COLOUR = ("\x1b[1;31m", "\x1b[0m")  # bold red
SHOWN_CONTROLS = frozenset("\n\t")  # their effect is their look
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, formats, half a pair, line and paragraph separators
FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")  # letters, marks and a symbol without ink


def hidden(character: str) -> bool:
    """Whether a character cannot be seen, or changes how those around it are shown; newline and tab excepted."""
    if character.isascii():
        return not character.isprintable() and character not in SHOWN_CONTROLS
    code = ord(character)
    unassigned = 0xE0000 <= code <= 0xE0FFF or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
    return unassigned or character in FILLERS or unicodedata.category(character) in INVISIBLE


def mark(character: str) -> str:
    """What is shown in the place of a hidden character: ␀ for NUL, ⟨U+202E⟩ for a right-to-left override."""
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def name(character: str) -> str:
    """The number of a character and its Unicode name; controls have none but that."""
    given = unicodedata.name(character, "") or ("control" if unicodedata.category(character) == "Cc" else "no name")
    return f"U+{ord(character):04X} {given.lower()}"


def visible(text: str) -> str:
    """`text` with each hidden character replaced by its mark."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(mark(character) if hidden(character) else character for character in text)


def marks_for_stdout() -> tuple[str, str]:
    """What opens and what closes a run of marked tokens: colour on a terminal, brackets in a log."""
    return COLOUR if sys.stdout.isatty() else BRACKETS


def printable(text: str) -> str:
    """`text` as standard output can encode it: a log in Latin-1 must not end a run."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
