"""Fields: columns of a log, as text or typed, parsed to validated ids, times and ratings.

Every public function takes `where`, which maps a row number to its place ("ratings.csv, line 7")
for error messages, and raises a UserError for the first invalid row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert4rec_jax.data.delimited import shorten
from bert4rec_jax.data.options import TimeUnit
from bert4rec_jax.errors import UserError

Where = Callable[[int], str]
Parse = Callable[[pa.Array], npt.NDArray[Any]]

LATEST = 4_133_980_799  # the last second of the year 2100
_PARTS_OF_A_SECOND: dict[TimeUnit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_NAMES_OF_UNITS: dict[TimeUnit, str] = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
}


def ids(column: pa.Array, role: str, where: Where) -> pa.DictionaryArray:
    """User or item ids as codes into a table of strings.

    Whole numbers become their digits; text keeps its leading zeros. `role` says in messages what
    the column holds.
    """
    column = _decoded(column)
    kind = column.type
    if not (_is_text(kind) or pa.types.is_integer(kind)):
        raise _wrong_type(column, f"{role} id", "text or whole numbers", where)
    encoded = column.dictionary_encode()
    names = encoded.dictionary.cast(pa.string())
    empty = pc.index(names, pa.scalar("")).as_py()
    missing = column.is_null() if column.null_count else pc.equal(encoded.indices, empty)
    if column.null_count or empty >= 0:
        row = pc.index(missing, pa.scalar(True)).as_py()
        raise UserError(
            f"{where(row)}: the {role} id is empty; every row needs a user and an item: give it "
            "one, or remove the row"
        )
    return pa.DictionaryArray.from_arrays(encoded.indices, names)


def timestamps(column: pa.Array, where: Where, unit: TimeUnit = "s") -> npt.NDArray[np.int64]:
    """Seconds since 1970, parsed from numbers in a unit, dates, or text with either.

    Fractions of a second are dropped; times without a time zone are UTC.
    """
    parts = _PARTS_OF_A_SECOND[unit]
    column = _decoded(column)
    kind = column.type
    expected = f"{_NAMES_OF_UNITS[unit]} since 1970, or a date such as 2024-05-31 18:00:00"
    if column.null_count:
        raise _invalid(column, _first(column.is_null()), "timestamp", expected, where)
    if _is_text(kind):
        parse: Parse = partial(_seconds_of_text, parts)
    elif pa.types.is_integer(kind):
        parse = partial(_seconds_of_integers, parts)
    elif pa.types.is_floating(kind):
        parse = partial(_seconds_of_floats, parts)
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        parse = _seconds_of_dates
    else:
        raise _wrong_type(column, "timestamp", expected, where)
    seconds = _parsed(column, parse, "timestamp", expected, where)
    _refuse_absurd(seconds, column, where, unit)
    return seconds


def chosen(
    column: pa.Array, wanted: Sequence[str], where: Where
) -> tuple[pa.BooleanArray, dict[str, int]]:
    """Mask of the rows with a wanted event, and how many rows each event has.

    Events are text or whole numbers. A row without an event has none of the wanted ones.
    """
    column = _decoded(column)
    if not (_is_text(column.type) or pa.types.is_integer(column.type)):
        raise _wrong_type(column, "event", "text or whole numbers", where)
    names = column.cast(pa.string()).fill_null("")
    counts = {x["values"]: x["counts"] for x in pc.value_counts(names).to_pylist()}
    return pc.is_in(names, pa.array(wanted, pa.string())), counts


def ratings(column: pa.Array, where: Where, *, may_be_empty: bool) -> npt.NDArray[np.float32]:
    """Finite ratings; an empty field or null becomes NaN if `may_be_empty`, else it is an error."""
    column = _decoded(column)
    kind = column.type
    expected = "a finite number" + " (or nothing, for unrated)" * may_be_empty
    if _is_text(kind):
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, kind), column)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise _wrong_type(column, "rating", expected, where)
    if column.null_count and not may_be_empty:
        raise _invalid(column, _first(column.is_null()), "rating", expected, where)
    values = _parsed(column, _floats, "rating", expected, where)
    infinite = ~np.isfinite(values) & column.is_valid().to_numpy(zero_copy_only=False)
    if infinite.any():
        raise _invalid(column, int(infinite.argmax()), "rating", expected, where)
    return values


def _decoded(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.string()) if pa.types.is_string_view(column.type) else column


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _parsed(
    column: pa.Array, parse: Parse, what: str, expected: str, where: Where
) -> npt.NDArray[Any]:
    try:
        return parse(column)
    except pa.ArrowInvalid:
        pass
    # pyarrow does not say which value is invalid: find it by bisection.
    start, count = 0, len(column)
    while count > 1:
        half = count // 2
        try:
            parse(column.slice(start, half))
        except pa.ArrowInvalid:
            count = half
        else:
            start, count = start + half, count - half
    raise _invalid(column, start, what, expected, where)


def _wrong_type(column: pa.Array, what: str, expected: str, where: Where) -> UserError:
    return UserError(
        f"{where(0)}: the {what} {shorten(column[0].as_py())} is of type {column.type}; expected "
        f"{expected}: convert the column"
    )


def _invalid(column: pa.Array, row: int, what: str, expected: str, where: Where) -> UserError:
    value = column[row].as_py()
    came = "is empty" if value in (None, "") else f"{shorten(value)} is not valid"
    raise UserError(f"{where(row)}: the {what} {came}; expected {expected}: fix or remove the row")


def _refuse_absurd(
    seconds: npt.NDArray[np.int64], column: pa.Array, where: Where, unit: TimeUnit
) -> None:
    absurd = (seconds < 0) | (seconds > LATEST)
    if not absurd.any():
        return
    row = int(absurd.argmax())
    value, expected = int(seconds[row]), _NAMES_OF_UNITS[unit]
    came = f"{where(row)}: the timestamp {shorten(column[row].as_py())}"
    if value < 0:
        raise UserError(f"{came} lies before 1970; expected {expected} since 1970: fix the row")
    parts = value * _PARTS_OF_A_SECOND[unit]
    finer = [u for u, factor in _PARTS_OF_A_SECOND.items() if parts <= LATEST * factor]
    remedy = (
        f"if these are {_NAMES_OF_UNITS[finer[0]]}, prepare the log with --timestamp-unit "
        f"{finer[0]}"
        if finer
        else "convert the column"
    )
    raise UserError(f"{came} lies beyond the year 2100; expected {expected} since 1970: {remedy}")


def _first(marks: pa.BooleanArray) -> int:
    return int(pc.index(marks, pa.scalar(True)).as_py())


def _seconds_of_text(parts: int, column: pa.StringArray) -> npt.NDArray[np.int64]:
    try:
        return _seconds_of_integers(parts, column)
    except pa.ArrowInvalid:
        pass
    is_number = pc.match_substring_regex(column, r"^-?\d+(\.\d*)?([eE][+-]?\d+)?$")
    rows = is_number.to_numpy(zero_copy_only=False)
    seconds = np.empty(len(column), np.int64)
    seconds[rows] = _seconds_of_floats(parts, column.filter(is_number).cast(pa.float64()))
    seconds[~rows] = _seconds_of_dates(_dates(column.filter(pc.invert(is_number))))
    return seconds


def _dates(column: pa.StringArray) -> pa.TimestampArray:
    """ISO dates as timestamps; with or without a time, the time with or without a time zone."""
    midnight = pc.if_else(pc.equal(pc.utf8_length(column), 10), "T00:00Z", "")
    column = pc.binary_join_element_wise(column, midnight, "")
    has_zone = pc.match_substring_regex(column, r"(Z|[+-]\d\d(:?\d\d)?)$")
    column = pc.binary_join_element_wise(column, pc.if_else(has_zone, "", "Z"), "")
    return column.cast(pa.timestamp("ns", "UTC"))


def _seconds_of_dates(column: pa.Array) -> npt.NDArray[np.int64]:
    moments = column.cast(pa.timestamp("s", getattr(column.type, "tz", None)), safe=False)
    return _numpy(moments.cast(pa.int64()))


def _seconds_of_integers(parts: int, column: pa.Array) -> npt.NDArray[np.int64]:
    values: npt.NDArray[np.int64] = _numpy(column.cast(pa.int64()))
    return values // parts


def _seconds_of_floats(parts: int, column: pa.Array) -> npt.NDArray[np.int64]:
    values = _numpy(column) / parts
    if not np.isfinite(values).all():
        raise pa.ArrowInvalid("not finite")
    seconds: npt.NDArray[np.int64] = np.clip(np.floor(values), -1, 2**62).astype(np.int64)
    return seconds


def _floats(column: pa.Array) -> npt.NDArray[np.float32]:
    text = _is_text(column.type)
    values = column if text or pa.types.is_floating(column.type) else column.cast(pa.float64())
    with np.errstate(over="ignore"):
        return _numpy(values.cast(pa.float32(), safe=False).fill_null(np.nan))


def _numpy(column: pa.Array) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values
