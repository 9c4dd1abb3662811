"""Annotated responses as one HTML file that needs nothing else: no network, no server, no other file.

    write_page(location("view.html"), strict3)          # or a `Pairing` of two data sets

The file is `assets/template.html` with style, scripts and the data inlined. Text that a model wrote is data, never
markup: it is stored as JSON in which `<`, `>`, `&` and hidden characters are escaped. The scripts turn it into text
nodes. The page's own policy forbids every other script, and every request.

The payload consists of arrays, to be small. `assets/data.js` reads what each of these functions writes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

from openrlhf_cft import display
from openrlhf_cft.data.location import Location
from openrlhf_cft.data.records import Sampled, Verdict
from openrlhf_cft.data.token_text import Kind
from openrlhf_cft.view.facts import facts, hints, metadata_text, selection
from openrlhf_cft.view.model import Counterfactual, ShownData, ShownResponse
from openrlhf_cft.view.pairing import Pairing
from openrlhf_cft.view.summary import Share, Summary, responses_summary

# They are joined in this order, and share one scope.
SCRIPTS = ("data", "text", "summary", "tokens", "card", "responses", "filters", "keys", "main")
SPECIAL, PARTIAL = 1, 2  # flags of a token
DIGITS = 4  # significant digits of a weight, a log-probability, a score
NOT_TRIED = "not tried"
VERDICTS = [NOT_TRIED, *(verdict.value for verdict in Verdict)]
KINDS = [kind.value for kind in Kind]
_ESCAPED = re.compile(r"[<>&\u2028\u2029\ud800-\udfff]")


def write_page(out: Location, shown: ShownData | Pairing) -> int:
    """Write the page, whole or not at all.

    Returns:
        Its size in bytes.
    """
    text = page(shown)
    out.write_text(text)
    return len(text.encode())


def page(shown: ShownData | Pairing) -> str:
    """The HTML of one data set, or of two side by side."""
    import jinja2

    sides = [shown] if isinstance(shown, ShownData) else [shown.left, shown.right]
    style, script = _asset("style.css"), _script()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(_asset("template.html")).render(
        policy=_policy(style, script),
        title=display.visible(" and ".join(side.name for side in sides)),
        style=style,
        script=script,
        payload=to_json(payload(shown)),
    )


def to_json(value: Any) -> str:
    """JSON that an HTML `script` element can hold, with any text in it. An editor shows all of its characters."""

    def escaped(character: str) -> str:
        code = ord(character)
        units = [code] if code < 0x10000 else [0xD800 + (code - 0x10000 >> 10), 0xDC00 + (code & 0x3FF)]
        return "".join(f"\\u{unit:04x}" for unit in units)

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    unseen = {character for character in set(text) if _ESCAPED.match(character) or display.hidden(character)}
    return text.translate({ord(character): escaped(character) for character in unseen})


def payload(shown: ShownData | Pairing) -> dict[str, Any]:
    """Everything that the scripts read, as JSON.

    Returns:
        `sets` (one or two), `rows`, and the lists that they refer to by number: `vocabulary`, `texts`, `kinds`,
        `verdicts`. `marks` has the mark and the name of each hidden character that occurs. `agreement` is None for
        one data set.
    """
    packer = _Packer()
    if isinstance(shown, ShownData):
        sides = [shown]
        rows = [packer.row([response], [shown], same=False) for response in shown.responses]
    else:
        sides = [shown.left, shown.right]
        rows = [packer.row([pair.left, pair.right], sides, pair.same) for pair in shown.pairs]
    content = {
        "sets": [_set(side, responses) for side, responses in zip(sides, _shown(shown), strict=True)],
        "agreement": None if isinstance(shown, ShownData) else _agreement(shown),
        "kinds": KINDS,
        "verdicts": VERDICTS,
        "vocabulary": packer.vocabulary.items,
        "texts": packer.texts.items,
        "rows": rows,
    }
    unseen = {character for character in _characters(content) if display.hidden(character)}
    marks = {character: [display.mark(character), display.name(character)] for character in sorted(unseen)}
    return {**content, "marks": marks}


class _Interned:
    """A list in which each item occurs once."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, key: Any, item: Any) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self.items)
            self.items.append(item)
        return self._numbers[key]


class _Packer:
    """Turns rows into arrays. Values that repeat are written once."""

    def __init__(self) -> None:
        self.vocabulary = _Interned()  # [token id, text, kind, flags, name]; the last two only if there are any
        self.texts = _Interned()  # of rollouts

    def row(self, responses: Sequence[ShownResponse], sides: Sequence[ShownData], same: bool) -> list[Any]:
        """[id, question, gold, [side ...], same]; if `same`, the second side shares the tokens of the first one."""
        first = responses[0]
        packed = [self._side(*pair) for pair in zip(responses, sides, strict=True)]
        if same:
            packed[1][2] = None
        return [first.id, first.question, first.gold, packed, int(same)]

    def _side(self, response: ShownResponse, data: ShownData) -> list[Any]:
        """[answer, verdict, tokens, weights, alternatives, samples]; the last only if there are any.

        Weights of 0 and 1 are written as a string of digits.
        """
        tokens = [
            self._token(token, piece.text, KINDS.index(piece.kind.value), piece.special, piece.partial, name)
            for token, piece, name in zip(response.token_ids, response.pieces, response.names, strict=True)
        ]
        weights: Any = [_rounded(weight) for weight in response.weights]
        if data.binary:
            weights = "".join(str(int(weight)) for weight in weights)
        others = [[self._alternative(item) for item in position] for position in response.counterfactuals]
        packed = [response.answer, response.verdict, tokens, weights, others if any(others) else None]
        return packed if response.sampled is None else [*packed, [_counts(one) for one in response.sampled]]

    def _token(self, token: int, text: str, kind: int | None, special: bool, partial: bool, name: str | None) -> int:
        flags = SPECIAL * special + PARTIAL * partial
        item = _trimmed([token, text, kind, flags or None, name])
        return self.vocabulary.number(tuple(item), item)

    def _alternative(self, counterfactual: Counterfactual) -> list[Any]:
        """[token, rank, logprob] if it was not tried.

        Otherwise [token, rank, logprob, verdict, length, truncated, score, text, samples], without what is missing at
        its end.
        """
        item = counterfactual.alternative
        packed: list[Any] = [
            self._token(item.token_id, counterfactual.text, None, False, False, counterfactual.name),
            item.rank,
            _rounded(item.logprob),
        ]
        if item.skipped:
            return packed
        rollout = counterfactual.rollout
        text = None if rollout is None else self.texts.number(rollout, rollout)
        score = None if item.score is None else _rounded(item.score)
        verdict = 0 if item.verdict is None else VERDICTS.index(item.verdict.value)
        samples = None if item.sampled is None else _counts(item.sampled)
        return _trimmed([*packed, verdict, item.rollout_length, int(item.truncated) or None, score, text, samples])


def _counts(sampled: Sampled) -> list[int]:
    """[correct, count]"""
    return [sampled.correct, sampled.count]


def _trimmed(item: list[Any]) -> list[Any]:
    """The list without the None values at its end."""
    while item and item[-1] is None:
        item = item[:-1]
    return item


def _rounded(value: float) -> float:
    """A number with `DIGITS` significant digits, a whole one without a point."""
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded


def _shown(shown: ShownData | Pairing) -> list[list[ShownResponse]]:
    """The responses on the page, by data set; of two data sets, those that are in pairs."""
    if isinstance(shown, ShownData):
        return [shown.responses]
    return [[pair.left for pair in shown.pairs], [pair.right for pair in shown.pairs]]


def _set(data: ShownData, responses: list[ShownResponse]) -> dict[str, Any]:
    summary = responses_summary(responses)
    return {
        "name": data.name,
        "mask": data.mask,
        "binary": data.binary,
        "largest": _rounded(max((weight for response in responses for weight in response.weights), default=0.0)),
        "selection": selection(data),
        "facts": facts(data),
        "metadata": metadata_text(data),
        "summary": _summary(summary),
        "hints": hints(data, summary),
        "total": data.total,
        "without": data.without_mask,
        "job": {key: data.job[key] for key in ("rows_read", "decoded_tokens", "seconds") if key in data.job},
    }


def _summary(summary: Summary) -> dict[str, Any]:
    return {
        "rows": summary.rows,
        "all": _share(summary.all),
        "kinds": [_share(item) for item in summary.kinds],
        "places": [_share(item) for item in summary.places],
        "spread": summary.spread,
        "lengths": summary.lengths,
        "often": [[item.text, item.critical, item.tokens, item.alternatives] for item in summary.often],
        "cost": None if summary.cost is None else asdict(summary.cost),
    }


def _share(share: Share) -> list[Any]:
    """[label, tokens, critical tokens, mean weight]."""
    return [share.label, share.tokens, share.critical, None if share.mean is None else _rounded(share.mean)]


def _agreement(pairing: Pairing) -> dict[str, Any]:
    """See `pairing.Pairing` and `masks.agreement`."""
    return {
        "pairs": sum(pair.same for pair in pairing.pairs),
        "others": sum(not pair.same for pair in pairing.pairs),
        "matched": pairing.matched,
        "only": [pairing.only_left, pairing.only_right],
        **pairing.agreement.figures(),
    }


def _characters(value: Any) -> set[str]:
    """All characters of all strings in a JSON value."""
    if isinstance(value, str):
        return set(value)
    items = value.values() if isinstance(value, dict) else value
    return set().union(*(_characters(item) for item in items if isinstance(item, str | dict | list | tuple)))


def _asset(name: str) -> str:
    return resources.files("openrlhf_cft.view").joinpath("assets").joinpath(name).read_text(encoding="utf-8")


def _script() -> str:
    """All scripts as one, in a scope of its own."""
    joined = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    assert "</script" not in joined.lower(), "it would end the element"
    return f'(() => {{\n"use strict";\n{joined}}})();\n'


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy that allows this style and this script, no requests, and no strings as markup."""

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {source(script)}; style-src {source(style)}; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
