"""Fields: columns of a log, as text or typed, parsed to validated ids, times and ratings.

Every public function takes `where`, which maps a row number to its place ("ratings.csv, line 7")
for error messages, and raises a UserError for the first invalid row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert4rec_jax.checks import SPACED_ZONE
from bert4rec_jax.data.delimited import shorten
from bert4rec_jax.data.options import TimeUnit, option, unit_option
from bert4rec_jax.errors import UserError

Where = Callable[[int], str]
Parse = Callable[[pa.Array], npt.NDArray[Any]]

LATEST = 4_133_980_799  # the last second of the year 2100
_NANOSECONDS = 10**9
PARTS_OF_A_SECOND: dict[TimeUnit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": _NANOSECONDS}
NAMES_OF_UNITS: dict[TimeUnit, str] = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
}


@dataclass(frozen=True)
class Times:
    """Times since 1970 that are split into seconds and what is finer.

    Attributes:
      seconds: `[N]` int64, whole seconds.
      fractions: `[N]` int32, nanoseconds within the second. None: all are 0.
    """

    seconds: npt.NDArray[np.int64]
    fractions: npt.NDArray[np.int32] | None


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
    if column.null_count or pc.index(names, pa.scalar("")).as_py() >= 0:
        place = where(_first(missing(column)))
        raise _missing(place, f"{role} id", "every row needs a user and an item")
    return pa.DictionaryArray.from_arrays(encoded.indices, names)


def timestamps(
    column: pa.Array, where: Where, unit: TimeUnit = "s", *, in_range: bool = True
) -> Times:
    """Times since 1970, parsed from numbers in a unit, dates, or text with either.

    Times without a time zone are UTC. Whole numbers and dates keep their nanoseconds; numbers with
    a fraction are as precise as a float64. With `in_range`, times before 1970 or far in the future
    are refused.
    """
    parts = PARTS_OF_A_SECOND[unit]
    column = _decoded(column)
    kind = column.type
    expected = f"{NAMES_OF_UNITS[unit]} since 1970, or a date such as 2024-05-31 18:00:00"
    absent = missing(column)
    if pc.any(absent).as_py():
        raise _missing(where(_first(absent)), "timestamp", f"expected {expected}")
    if _is_text(kind):
        parse: Parse = partial(_moments_of_text, parts)
    elif pa.types.is_integer(kind):
        parse = partial(_moments_of_integers, parts)
    elif pa.types.is_floating(kind):
        parse = partial(_moments_of_floats, parts)
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        parse = _moments_of_dates
    else:
        raise _wrong_type(column, "timestamp", expected, where)
    seconds, fractions = _parsed(column, parse, "timestamp", expected, where)
    if in_range:
        _refuse_absurd(seconds, column, where, unit)
    return Times(seconds, fractions.astype(np.int32) if fractions.any() else None)


def chosen(
    column: pa.Array, wanted: Sequence[str], where: Where
) -> tuple[pa.BooleanArray, dict[str, int]]:
    """Mask of the rows with a wanted event, and how many rows each event has.

    Events are text, numbers (4.0 is `4`) or `true` and `false`. A row without an event has none of
    the wanted ones.
    """
    column = _decoded(column)
    kind = column.type
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if not (plain or _is_text(kind)):
        raise _wrong_type(column, "event", "text, numbers, or true and false", where)
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


def missing(column: pa.Array) -> pa.BooleanArray:
    """Mask of the values that are null or empty text; no value is read for what it means."""
    column = _decoded(column)
    if _is_text(column.type):
        return pc.fill_null(pc.equal(column, pa.scalar("", column.type)), True)
    return column.is_null()


def _decoded(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):  # what is inferred where no value is given
        return column.cast(pa.string())
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
        f"{where(0)}: the {what} {shorten(_value(column, 0))} is of type {column.type}; expected "
        f"{expected}: convert the column"
    )


def _missing(place: str, what: str, expected: str) -> UserError:
    return UserError(
        f"{place}: the {what} is empty; {expected}: fix or remove the row, or prepare the "
        f"log with {option('--skip-incomplete', 'skip_incomplete=True')}, which leaves out such "
        "rows"
    )


def _value(column: pa.Array, row: int) -> Any:
    if pa.types.is_temporal(column.type):  # Python has no nanoseconds
        column, row = column.slice(row, 1).cast(pa.string()), 0
    return column[row].as_py()


def _invalid(column: pa.Array, row: int, what: str, expected: str, where: Where) -> UserError:
    value = _value(column, row)
    came = "is empty" if value in (None, "") else f"{shorten(value)} is not valid"
    raise UserError(f"{where(row)}: the {what} {came}; expected {expected}: fix or remove the row")


def _refuse_absurd(
    seconds: npt.NDArray[np.int64], column: pa.Array, where: Where, unit: TimeUnit
) -> None:
    absurd = (seconds < 0) | (seconds > LATEST)
    if not absurd.any():
        return
    row = int(absurd.argmax())
    value, expected = int(seconds[row]), NAMES_OF_UNITS[unit]
    came = f"{where(row)}: the timestamp {shorten(_value(column, row))}"
    if value < 0:
        raise UserError(f"{came} lies before 1970; expected {expected} since 1970: fix the row")
    parts = value * PARTS_OF_A_SECOND[unit]
    finer = [u for u, factor in PARTS_OF_A_SECOND.items() if parts <= LATEST * factor]
    remedy = (
        f"if these are {NAMES_OF_UNITS[finer[0]]}, prepare the log with {unit_option(finer[0])}"
        if finer
        else "convert the column"
    )
    raise UserError(f"{came} lies beyond the year 2100; expected {expected} since 1970: {remedy}")


def _first(marks: pa.BooleanArray) -> int:
    return int(pc.index(marks, pa.scalar(True)).as_py())


def _moments_of_text(parts: int, column: pa.StringArray) -> npt.NDArray[np.int64]:
    """`[2, N]`: seconds, and nanoseconds within them; so do all functions of this name."""
    try:
        return _moments_of_integers(parts, column)
    except pa.ArrowInvalid:
        pass
    is_whole = pc.match_substring_regex(column, r"^-?[0-8]?\d{1,18}$")
    is_number = pc.match_substring_regex(column, r"^-?\d+(\.\d*)?([eE][+-]?\d+)?$")
    moments = np.empty((2, len(column)), np.int64)
    parsers: tuple[tuple[pa.BooleanArray, Parse], ...] = (
        (is_whole, partial(_moments_of_integers, parts)),
        (pc.and_not(is_number, is_whole), partial(_moments_of_decimals, parts)),
        (pc.invert(is_number), _moments_of_written_dates),
    )
    for marks, parse in parsers:
        moments[:, marks.to_numpy(zero_copy_only=False)] = parse(column.filter(marks))
    return moments


def _moments_of_decimals(parts: int, column: pa.StringArray) -> npt.NDArray[np.int64]:
    return _moments_of_floats(parts, column.cast(pa.float64()))


def _moments_of_written_dates(column: pa.StringArray) -> npt.NDArray[np.int64]:
    """Of ISO dates, with or without a time, the time with or without a time zone.

    A space may stand before the zone, which BigQuery writes as ` UTC`.
    """
    column = column.cast(pa.string())  # pandas and polars write other types of text
    column = pc.replace_substring_regex(column, SPACED_ZONE, r"\1\2")
    midnight = pc.if_else(pc.equal(pc.utf8_length(column), 10), "T00:00Z", "")
    column = pc.binary_join_element_wise(column, midnight, "")
    has_zone = pc.match_substring_regex(column, r"(Z|[+-]\d\d(:?\d\d)?)$")
    column = pc.binary_join_element_wise(column, pc.if_else(has_zone, "", "Z"), "")
    return _moments_of_dates(column.cast(pa.timestamp("ns", "UTC")))


def _moments_of_dates(column: pa.Array) -> npt.NDArray[np.int64]:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"), safe=False)
    return _moments_of_integers(PARTS_OF_A_SECOND[column.type.unit], column)


def _moments_of_integers(parts: int, column: pa.Array) -> npt.NDArray[np.int64]:
    seconds, rest = np.divmod(_numpy(column.cast(pa.int64())), parts)
    return np.stack([seconds, rest * (_NANOSECONDS // parts)])


def _moments_of_floats(parts: int, column: pa.Array) -> npt.NDArray[np.int64]:
    values = _numpy(column)
    if not np.isfinite(values).all():
        raise pa.ArrowInvalid("not finite")
    seconds, rest = np.divmod(values.astype(np.float64), parts)
    fractions = np.clip(rest * (_NANOSECONDS // parts), 0, _NANOSECONDS - 1)
    return np.stack([np.clip(seconds, -1, 2**62), fractions]).astype(np.int64)


def _floats(column: pa.Array) -> npt.NDArray[np.float32]:
    text = _is_text(column.type)
    values = column if text or pa.types.is_floating(column.type) else column.cast(pa.float64())
    with np.errstate(over="ignore"):
        return _numpy(values.cast(pa.float32(), safe=False).fill_null(np.nan))


def _numpy(column: pa.Array) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values
