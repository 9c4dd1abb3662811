"""Gold answers and ids of any column type, as a person would write them."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_cft.data.plain_text import plain_text, text_type
from openrlhf_cft.errors import InputError

VALUES: list[tuple[Any, pa.DataType, str | None]] = [
    (3.14, pa.float32(), "3.14"),
    (0.1, pa.float16(), "0.1"),
    (0.1 + 0.2, pa.float64(), "0.30000000000000004"),
    (18.0, pa.float64(), "18"),
    (-0.0, pa.float32(), "0"),
    (-2.50, pa.float32(), "-2.5"),
    (1e20, pa.float64(), "100000000000000000000"),
    (6.02e23, pa.float64(), "6.02e+23"),
    (1.5e-9, pa.float64(), "1.5e-9"),
    (16777217, pa.int64(), "16777217"),
    (decimal.Decimal("18.00"), pa.decimal128(10, 2), "18"),
    (decimal.Decimal("1200.50"), pa.decimal256(40, 2), "1200.5"),
    ("  007 ", pa.string(), "  007 "),
    ("x", pa.large_string(), "x"),
    ("½".encode(), pa.binary(), "½"),
    (float("nan"), pa.float32(), None),
    (None, pa.int32(), None),
    (None, pa.null(), None),
    (" \n", pa.string(), None),
    (b"", pa.binary(), None),
]


@pytest.mark.parametrize(("value", "kind", "text"), VALUES, ids=str)
def test_values(value: Any, kind: pa.DataType, text: str | None) -> None:
    assert text_type(kind) is None
    stored = pa.array([value], kind).to_pylist()[0] if not isinstance(value, float) or kind != pa.float16() else value
    assert plain_text(stored, kind) == text


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float_is_what_its_text_says(number: float) -> None:
    text = plain_text(number, pa.float32())
    assert text is not None and pa.scalar(float(text), pa.float32()).as_py() == number
    assert len(text) <= 30


@pytest.mark.parametrize("value", [b"\xff\xfe", float("inf"), float("-inf")])
def test_what_has_no_text(value: Any) -> None:
    with pytest.raises(InputError):
        plain_text(value, pa.binary() if isinstance(value, bytes) else pa.float64())


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (pa.bool_(), "true and false"),
        (pa.struct([("a", pa.int32())]), "struct<a: int32>"),
        (pa.list_(pa.string()), "list<"),
        (pa.timestamp("s"), "timestamp"),
        (pa.date32(), "date32"),
        (pa.dictionary(pa.int32(), pa.bool_()), "true and false"),
    ],
    ids=str,
)
def test_types_without_one_text(kind: pa.DataType, said: str) -> None:
    assert said in (text_type(kind) or "")


def test_a_dictionary_of_texts_has_them() -> None:
    assert text_type(pa.dictionary(pa.int32(), pa.string())) is None
    assert datetime.date(2026, 1, 1)
