"""Column values as the text that a person would write for them: ids and gold answers of any column type.

plain_text(3.140000104904175, pyarrow.float32())     # "3.14"; 18.0 is "18"
"""

from __future__ import annotations

import decimal
from typing import TYPE_CHECKING, Any

from openrlhf_cft.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

POSITIONAL = range(-7, 21)  # numbers with these decimal exponents are written without an exponent


def text_type(kind: pa.DataType) -> str | None:
    """Why values of an Arrow type have no single text form; None if they have one: text, numbers and bytes."""
    from pyarrow import types

    texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    numbers = (types.is_integer, types.is_floating, types.is_decimal)
    if types.is_dictionary(kind):
        return text_type(kind.value_type)
    if types.is_null(kind) or any(is_one(kind) for is_one in (*texts, *numbers)):
        return None
    if types.is_boolean(kind):
        return "true and false, which a response may write in many ways"
    return f"values of type {kind}"


def plain_text(value: Any, kind: pa.DataType | None = None) -> str | None:
    """The text of one value; None if there is nothing: null, NaN, or only white space.

    Numbers are written with the fewest digits that give the same number in the column's own precision.

    Args:
        value: a Python object.
        kind: Arrow type of its column, one that `text_type` accepts; None if the value comes from no column.

    Raises:
        InputError: the value is bytes that are not UTF-8, or an infinite number.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"the bytes {value!r:.80} are not UTF-8") from error
    if isinstance(value, float):
        return _float_text(value, kind)
    if isinstance(value, decimal.Decimal):
        return _positional(value)
    return str(value) if value is not None and str(value).strip() else None


def _float_text(value: float, kind: pa.DataType | None) -> str | None:
    """The shortest decimal; None for NaN."""
    import numpy as np

    if value != value:
        return None
    if value in (float("inf"), float("-inf")):
        raise InputError(f"{value} is no answer")
    number = np.float64(value) if kind is None else kind.to_pandas_dtype()(value)
    return _positional(decimal.Decimal(np.format_float_scientific(number, unique=True, trim="-")))


def _positional(number: decimal.Decimal) -> str:
    """The number without trailing zeros, and with an exponent only if it would need many zeros: 1e+30."""
    if not number:
        return "0"
    number = number.normalize()
    return f"{number:f}" if number.adjusted() in POSITIONAL else f"{number:e}"
