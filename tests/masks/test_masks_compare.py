"""Agreement against the formula over a confusion matrix; `compare` and `stats` against counting by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from masks_data import annotate, written
from properties import tries
from tokenizer_families import byte_level
from train_helpers import write_rows

from openrlhf_cft.cli.masks import main
from openrlhf_cft.data.records import (
    ALTERNATIVES,
    ID,
    MASK,
    RESPONSE_IDS,
    read_metadata,
    read_rows,
)
from openrlhf_cft.data.token_text import Kind, kind_of
from openrlhf_cft.masks.agreement import Agreement, agreement
from openrlhf_cft.masks.compare import cohen_kappa

PAIRS = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 1.0, 2.0])), max_size=30)


def literal_kappa(pairs: list[tuple[bool, bool]]) -> float | None:
    """Cohen 1960, from the 2 x 2 table of shares."""
    n = len(pairs)
    if n == 0:
        return None
    table = [[sum(pair == (a, b) for pair in pairs) / n for b in (True, False)] for a in (True, False)]
    observed = table[0][0] + table[1][1]
    expected = sum((table[c][0] + table[c][1]) * (table[0][c] + table[1][c]) for c in (0, 1))
    return None if abs(1 - expected) < 1e-12 else (observed - expected) / (1 - expected)


@tries(100)
@given(PAIRS)
def test_agreement_is_the_formulas(weights: list[tuple[float, float]]) -> None:
    left, right = [a for a, _ in weights], [b for _, b in weights]
    pairs = [(a > 0, b > 0) for a, b in weights]
    found, kappa = agreement(left, right), literal_kappa(pairs)
    assert cohen_kappa(left, right) == (None if kappa is None else pytest.approx(kappa, abs=1e-12))
    assert cohen_kappa(right, left) == cohen_kappa(left, right)
    n, hits = len(pairs), sum(a and b for a, b in pairs)
    in_a, in_b = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    assert found.share == (sum(a == b for a, b in pairs) / n if n else None)
    assert found.precision == (hits / in_b if in_b else None)
    assert found.recall == (hits / in_a if in_a else None)
    assert agreement(left[:3], right[:3]) + agreement(left[3:], right[3:]) == found
    assert set(found.figures()) == {name for name, value in found.figures().items() if value is not None}


def test_kappa_by_hand() -> None:
    """The example that statistics books have: 20 and 15 agreements, 5 and 10 disagreements."""
    assert Agreement(20, 5, 10, 15).kappa == pytest.approx(0.4)
    assert cohen_kappa([1, 0, 1], [1, 0, 1]) == 1.0 and cohen_kappa([1, 0], [0, 1]) == -1.0
    assert cohen_kappa([1, 1], [1, 1]) is None, "chance alone makes them agree"
    with pytest.raises(ValueError):
        cohen_kappa([1], [1, 0])


TEXTS = [f"{n} + {n} = {2 * n}, that is x{n} 🎉 or ½." for n in range(25)]


def by_hand(tokenizer: Any, token_ids: list[int]) -> list[Kind]:
    """Kinds of tokens of text in which no character is spread, but for the emoji, which is of one kind."""
    kinds = []
    for token in token_ids:
        text = tokenizer.decode([token])
        kinds.append(Kind.END if token == tokenizer.eos_token_id else kind_of(text.replace("\ufffd", "🎉")))
    return kinds


def test_compare_two_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = byte_level()
    tokenizer.save_pretrained(tmp_path / "model")
    left = written(tmp_path / "a", tokenizer, TEXTS, str(tmp_path / "model"), seed=1)
    rows = list(read_rows(written(tmp_path / "b", tokenizer, TEXTS, str(tmp_path / "model"), seed=2)))
    rows[0][MASK] = next(iter(read_rows(left)))[MASK]
    rows[1][RESPONSE_IDS] = rows[1][RESPONSE_IDS][::-1]
    rows[2][MASK] = None
    rows[3][ID] = "elsewhere"
    right = write_rows(tmp_path / "b", [*rows[::-1], rows[5]], read_metadata(left))
    assert main(["compare", str(left), str(right), "--out", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    pairs: list[tuple[Kind, bool, bool]] = []
    for a, b in zip(read_rows(left), rows, strict=True):
        if (a[ID], a[RESPONSE_IDS]) == (b[ID], b[RESPONSE_IDS]) and b[MASK] is not None:
            kinds = by_hand(tokenizer, a[RESPONSE_IDS])
            pairs += [(kind, x > 0, y > 0) for kind, x, y in zip(kinds, a[MASK], b[MASK], strict=True)]
    assert (found["rows"], found["rows_identical"], found["tokens"]) == (len(TEXTS) - 3, 1, len(pairs))
    assert found["rows_unmatched"] == {
        "other response tokens": 1,
        "no weights in B": 1,
        "only in A": 1,
        "only in B": 1,
        "id occurs again in B": 1,
    }
    assert found["kappa"] == pytest.approx(literal_kappa([pair[1:] for pair in pairs]))
    assert found["agreement"] == pytest.approx(sum(a == b for _, a, b in pairs) / len(pairs))
    assert {kind: counts["tokens"] for kind, counts in found["by_kind"].items()} == Counter(
        str(k) for k, _, _ in pairs
    )
    digits = [(a, b) for kind, a, b in pairs if kind is Kind.DIGITS]
    assert found["by_kind"]["digits"]["kappa"] == pytest.approx(literal_kappa(digits))
    shown = capsys.readouterr().out
    assert f"{found['kappa']:.3f}" in shown and "1   (no weights in B)" in shown


def test_compare_two_columns_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = annotate(tmp_path / "a", 4)
    main(["derive", str(source), "--column", "two", "--how", "strict-2", "--out", str(tmp_path / "b")])
    main(["compare", str(tmp_path / "b"), "--mask_b", "two", "--out", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["recall"] == 1 and found["only_a"] == 0 < found["only_b"], "Strict-2 has all of Strict-4"
    assert "kinds of tokens     not counted" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--mask_b: 'critical_mask' is --mask_a too"):
        main(["compare", str(source)])
    other = written(tmp_path / "c", byte_level(), TEXTS)
    with pytest.raises(ValueError, match="different tokenizers as far as can be told"):
        main(["compare", str(source), str(other)])


def test_stats_are_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = byte_level()
    tokenizer.save_pretrained(tmp_path / "model")
    source = written(tmp_path / "a", tokenizer, TEXTS, str(tmp_path / "model"))
    rows = list(read_rows(source))
    rows[1][MASK] = [0.0] * len(rows[1][MASK])
    rows[2][MASK] = [2.5 * weight for weight in rows[2][MASK]]
    rows[3][MASK] = None
    write_rows(source, rows, read_metadata(source))
    assert main(["stats", str(source), "--out", str(tmp_path / "stats.json")]) == 0
    found = json.loads((tmp_path / "stats.json").read_text())
    known = [row for row in rows if row[MASK] is not None]
    tokens, critical = Counter[Any](), Counter[Any]()
    for row in known:
        count = len(row[MASK])
        for at, (kind, weight) in enumerate(zip(by_hand(tokenizer, row[RESPONSE_IDS]), row[MASK], strict=True)):
            keys = ["all", str(kind), int(10 * at / count)] + ["first"] * (at == 0) + ["last"] * (at == count - 1)
            tokens.update(keys)
            critical.update(keys if weight > 0 else [])
    assert (found["rows"], found["rows_without_weights"], found["rows_without_critical_token"]) == (len(TEXTS), 1, 1)
    assert (found["tokens"], found["critical_tokens"]) == (tokens["all"], critical["all"])
    assert found["weights_sum"] == pytest.approx(sum(sum(row[MASK]) for row in known))
    for kind, counts in found["by_kind"].items():
        assert (counts["tokens"], counts["critical_tokens"]) == (tokens[kind], critical[kind])
    for at, counts in enumerate(found["by_position"]):
        assert (counts["tokens"], counts["critical_tokens"]) == (tokens[at], critical[at])
    assert (found["first_token"]["critical_tokens"], found["last_token"]["critical_tokens"]) == (
        critical["first"],
        critical["last"],
    )
    shares = sorted(sum(weight > 0 for weight in row[MASK]) / len(row[MASK]) for row in known)
    assert found["shares_of_rows"]["median"] == pytest.approx((shares[11] + shares[12]) / 2)
    assert found["shares_of_rows"]["largest"] == shares[-1] and found["shares_of_rows"]["least"] == 0
    by_share = [sum(share == 0 for share in shares)]
    by_share += [sum(part < 10 * share <= part + 1 for share in shares) for part in range(10)]
    assert found["rows_by_share"] == by_share and sum(by_share) == len(known)
    assert "verdicts_of_alternatives" not in found
    assert f"{critical['digits']} of {tokens['digits']}" in capsys.readouterr().out


def test_stats_of_alternatives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = annotate(tmp_path / "a", 4)
    main(["stats", str(source), "--out", str(tmp_path / "stats.json")])
    found = json.loads((tmp_path / "stats.json").read_text())
    verdicts = Counter(
        "skipped" if alternative["skipped"] else alternative["verdict"]
        for row in read_rows(source)
        for position in row[ALTERNATIVES]
        for alternative in position
    )
    assert found["verdicts_of_alternatives"] == verdicts and len(verdicts) >= 4
    assert "by_kind" not in found and "not counted: " in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--model.model_name_or_path: cannot load '/nowhere'"):
        main(["stats", str(source), "--model.model_name_or_path", "/nowhere"])
    with pytest.raises(ValueError, match=r"--out: 'x.parquet' does not end with .json"):
        main(["stats", str(source), "--out", "x.parquet"])


def test_no_row_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_rows(tmp_path / "a", [], {})
    assert main(["stats", str(source)]) == 0 and main(["compare", str(source), str(source)]) == 0
    assert "no token" in capsys.readouterr().out
