r"""Remove the special tokens at the end of a response's text: an end of turn, an end of text, padding.

    without_special_tokens("#### 18<|im_end|>\\n<|endoftext|>")      # "#### 18"

Text that was decoded with its special tokens has them. If the tokenizer is not known, text that looks like a special
token of a published model family counts as one. Takes linear time.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

MAX_TOKEN_CHARS = 64
# Read backwards: <|im_end|>, </s>, <end_of_turn>, <\uff5cend\u2581of\u2581sentence\uff5c>, <seed:eos>, <extra_id_1>;
# [EOS] and [|endofturn|]; [e~[ and ]~b].
_FAMILIES = re.compile(
    r"(?:\s{0,200}(?:>[\w|\uff5c\u2581:./-]{1,60}<|\](?:SOE|DAP|PES|SLC|DNE|TOE|KNU|SOB|TSNI/|\|\w{1,30}\|)\[|\[~e\[|\]b~\]))*"
)


def without_special_tokens(text: str, known: Collection[str] = ()) -> str:
    """The text without the special tokens at its end, and the white space among them.

    Args:
        text: of any content and length.
        known: the special tokens of the tokenizer; if empty, the form of the text decides.
    """
    pattern = _backwards(frozenset(known)) if known else _FAMILIES
    match = pattern.match(text[::-1])
    if match is None or match.end() == 0:
        return text
    return text[: len(text) - match.end()].rstrip()


@functools.lru_cache(maxsize=8)
def _backwards(known: frozenset[str]) -> re.Pattern[str]:
    """A pattern for any number of these tokens, read backwards; the longest token is tried first."""
    tokens = sorted((token[::-1] for token in known), key=len, reverse=True)
    return re.compile(rf"(?:\s{{0,200}}(?:{'|'.join(map(re.escape, tokens))}))*")


def special_tokens(folder: Path) -> frozenset[str]:
    """The special tokens of a tokenizer, from its files in the folder of a model; empty if there are none."""
    names: set[str] = set()
    for entry in _json(folder / "tokenizer.json").get("added_tokens") or []:
        if entry.get("special"):
            names.add(str(entry["content"]))
    config = _json(folder / "tokenizer_config.json")
    for entry in (config.get("added_tokens_decoder") or {}).values():
        if entry.get("special"):
            names.add(str(entry["content"]))
    for source in (config, _json(folder / "special_tokens_map.json")):
        for name, value in source.items():
            if name.endswith("_token") and value:
                names.add(str(value["content"] if isinstance(value, dict) else value))
    return frozenset(token for token in names if token and len(token) <= MAX_TOKEN_CHARS and token != "None")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
