"""Every verb of `masks` as a command on a data set that the real engine annotated. Called by `test_end_to_end.py`."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from test_masks_carry import comes_back
from tokenizer_families import FAMILIES
from transfer_helpers import TEMPLATE, literal_probabilities
from transformers import AutoTokenizer

from openrlhf_cft.cli.masks import main
from openrlhf_cft.data.records import ALTERNATIVES, ID, MASK, PROMPT_IDS, RESPONSE, RESPONSE_IDS, read_rows
from openrlhf_cft.data.token_text import decode
from openrlhf_cft.masks.carry import layout
from openrlhf_cft.train.row_checks import columns_to_read, count_tokens

Rows = list[dict[str, Any]]


class Verbs:
    """The commands, on one data set.

    Args:
        annotated: the data set, of Strict-3.
        model: that annotated it.
        folder: for what they write.
        finish: runs a command that has to succeed, and returns its output.
    """

    def __init__(self, annotated: Path, model: Path, folder: Path, finish: Callable[[list[str]], str]) -> None:
        self.annotated, self.model, self.folder, self._finish = annotated, model, folder, finish
        self.before: Rows = list(read_rows(annotated))
        self._started: set[str] = set()

    def run(self, verb: str, *words: str) -> str:
        """Each verb as a command the first time, later in this process: starting Python takes seconds."""
        if verb not in self._started:
            self._started.add(verb)
            return self._finish(["-m", "openrlhf_cft.cli.masks", verb, *words])
        with redirect_stdout(io.StringIO()) as output:
            assert main([verb, *words]) == 0
        return output.getvalue()

    def new(self, verb: str, name: str, *words: str) -> Rows:
        """The rows that a verb writes; training takes them."""
        out = self.folder / name
        print(self.run(verb, *words, "--out", str(out)))
        rows = list(read_rows(out))
        counts = count_tokens(pq.read_table(out, columns=columns_to_read(list(rows[0]), MASK)), MASK, 10_000)
        assert counts.trained_R.tolist() == [sum(weight > 0 for weight in row[MASK]) for row in rows]
        return rows

    def report(self, verb: str, *words: str) -> dict[str, Any]:
        """The figures that a verb writes."""
        print(self.run(verb, *words, "--out", str(self.folder / "report.json")))
        return dict(json.loads((self.folder / "report.json").read_text()))


def every_verb(verbs: Verbs) -> None:
    """All of them, one after the other."""
    stats(verbs)
    derive_and_compare(verbs)
    sample_and_merge(verbs)
    transfer_there_and_back(verbs)
    transfer_by_score(verbs)


def stats(verbs: Verbs) -> None:
    found = verbs.report("stats", str(verbs.annotated))
    tokens = sum(len(row[MASK]) for row in verbs.before)
    assert (found["rows"], found["tokens"]) == (len(verbs.before), tokens)
    assert found["critical_tokens"] == sum(sum(row[MASK]) for row in verbs.before)
    assert sum(kind["tokens"] for kind in found["by_kind"].values()) == tokens
    assert found["by_kind"]["end"]["tokens"] == found["last_token"]["tokens"] == len(verbs.before)
    assert sum(found["verdicts_of_alternatives"].values()) == 2 * tokens


def derive_and_compare(verbs: Verbs) -> None:
    hows = ["strict-2", "strict-3", "numbers", "random"]
    rows = verbs.new("derive", "derived", str(verbs.annotated), "--column", *"abcd", "--how", *hows)
    tokenizer = AutoTokenizer.from_pretrained(verbs.model)
    for old, row in zip(verbs.before, rows, strict=True):
        assert all(row[name] == value for name, value in old.items()), "nothing else changes"
        assert row["a"] == [float(position[0]["verdict"] != "correct") for position in row[ALTERNATIVES]]
        assert row["b"] == row[MASK] and sum(row["d"]) == sum(row[MASK])
        digits = [any(c.isdigit() for c in decode(tokenizer, [token])) for token in row[RESPONSE_IDS]]
        assert row["c"] == [float(digit) for digit in digits]
    derived = str(verbs.folder / "derived")
    found = verbs.report("compare", derived, "--mask_b", "a")
    assert found["recall"] == 1 and found["rows"] == len(rows) and found["rows_unmatched"] == {}
    assert 0 < found["precision"] < 1 and found["kappa"] < 1
    found = verbs.report("compare", str(verbs.annotated), derived, "--mask_b", "b")
    assert found["kappa"] == found["agreement"] == 1 and found["rows_identical"] == len(rows)


def sample_and_merge(verbs: Verbs) -> None:
    half = len(verbs.before) // 2
    one = verbs.new("sample", "one", str(verbs.annotated), "--rows", str(half))
    two = verbs.new("sample", "two", str(verbs.annotated), "--rows", str(half), "--seed", "1")
    assert one != two and all(row in verbs.before for row in one)
    parts = [str(verbs.folder / name) for name in ("one", "two")]
    merged = verbs.new("merge", "merged", *parts, "--on_duplicate", "first")
    assert merged == one + [row for row in two if row not in one]
    assert set(Counter(row[ID] for row in merged).values()) == {1}


def transfer_there_and_back(verbs: Verbs) -> None:
    source = AutoTokenizer.from_pretrained(verbs.model)
    prompts = ["--data.input_key", "question", "--data.apply_chat_template"]
    same = verbs.new("transfer", "same", str(verbs.annotated), "--to", str(verbs.model))
    assert same == verbs.before
    for family in ("byte_level", "metaspace"):
        target = FAMILIES[family]()
        target.chat_template = TEMPLATE
        target.save_pretrained(verbs.folder / family)
        words = [str(verbs.annotated), "--to", str(verbs.folder / family), *prompts]
        there = verbs.new("transfer", f"to_{family}", *words)
        back = verbs.new(
            "transfer", f"from_{family}", str(verbs.folder / f"to_{family}"), "--to", str(verbs.model), *prompts
        )
        assert len(there) == len(back) == len(verbs.before)
        returned = 0
        for old, new, again in zip(verbs.before, there, back, strict=True):
            assert new[RESPONSE] == old[RESPONSE] == again[RESPONSE] and again[PROMPT_IDS] == old[PROMPT_IDS]
            assert new["question"] == old["question"] and new[ALTERNATIVES] is None
            if again[RESPONSE_IDS] == old[RESPONSE_IDS]:  # a model may write what its tokenizer would not
                returned += 1
                layouts = [layout(t, r[RESPONSE_IDS], old[RESPONSE]) for t, r in ((source, old), (target, new))]
                assert (again[MASK] == old[MASK]) == comes_back(layouts[0], old[MASK], layouts[1])
        assert returned > 0.8 * len(verbs.before)


def transfer_by_score(verbs: Verbs) -> None:
    flags = ["--method", "score", "--share", "0.3", "--dtype", "float32"]
    rows = verbs.new("transfer", "scored", str(verbs.annotated), "--to", str(verbs.model), *flags)
    for old, row in zip(verbs.before, rows, strict=True):
        assert row[RESPONSE_IDS] == old[RESPONSE_IDS] and row[ALTERNATIVES] == old[ALTERNATIVES]
        assert sum(row[MASK]) == int(0.3 * len(row[MASK]) + 0.5)
    for row in rows[:2]:
        p = literal_probabilities(str(verbs.model), row)
        inside = [x for x, weight in zip(p, row[MASK], strict=True) if weight]
        outside = [x for x, weight in zip(p, row[MASK], strict=True) if not weight]
        assert max(inside) <= min(outside) * 1.001
