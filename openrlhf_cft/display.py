"""Show text that a model wrote, so that it cannot act on a terminal or a page, and no character of it is invisible.

A response may hold characters that reorder a line, erase it, ring a bell or cannot be seen. For a terminal and a log,
`visible` replaces each of them with a mark. The HTML page does so too, with the same `mark` and `name`. All commands
that show tokens share the rest: the marks around tokens, and text that standard output can encode.
"""

from __future__ import annotations

import sys
import unicodedata

BRACKETS = ("⟦", "⟧")
COLOUR = ("\x1b[1;31m", "\x1b[0m")  # bold red
SHOWN_CONTROLS = frozenset("\n\t")  # shown as they are: they are part of the layout
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, formats, surrogates, line and paragraph separators
FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")  # letters, marks and a symbol that look empty


def hidden(character: str) -> bool:
    """Whether a character is invisible, or changes how those around it are shown. Newline and tab do not count."""
    if character.isascii():
        return not character.isprintable() and character not in SHOWN_CONTROLS
    code = ord(character)
    unassigned = 0xE0000 <= code <= 0xE0FFF or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
    return unassigned or character in FILLERS or unicodedata.category(character) in INVISIBLE


def mark(character: str) -> str:
    """The text shown in place of a hidden character: ␀ for NUL, ⟨U+202E⟩ for a right-to-left override."""
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def name(character: str) -> str:
    """The code point of a character and its Unicode name; if Unicode gives it no name, "control" or "no name"."""
    given = unicodedata.name(character, "") or ("control" if unicodedata.category(character) == "Cc" else "no name")
    return f"U+{ord(character):04X} {given.lower()}"


def visible(text: str) -> str:
    """`text` with each hidden character replaced by its mark."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(mark(character) if hidden(character) else character for character in text)


def marks_for_stdout() -> tuple[str, str]:
    """The marks that open and close a run of marked tokens: colour on a terminal, brackets in a log."""
    return COLOUR if sys.stdout.isatty() else BRACKETS


def printable(text: str) -> str:
    """`text` as standard output can encode it, with `?` for other characters: a Latin-1 log must not end a run."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
