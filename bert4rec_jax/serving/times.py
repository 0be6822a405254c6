"""Times: when items were seen and requests are made, from tables and from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert4rec_jax.checks import seconds_of
from bert4rec_jax.errors import UserError

Times = Sequence[int | None]  # seconds since 1970; None where the time is not known
# Seconds since 1970, or a date with or without a time: UTC if it has no time zone.
RequestTime = int | str | date | datetime
UNKNOWN = int(np.iinfo(np.int64).min)  # in place of a time, in arrays
_LATEST = 2**32 - 1  # seconds since 1970, in 2106


def moment_of(time: RequestTime) -> int:
    """A time as seconds since 1970.

    Raises:
      UserError: it is no `RequestTime`, or out of range.
    """
    if isinstance(time, date):  # `datetime` is a subclass
        time = time.isoformat()
    seconds = seconds_of(time, "the time of the request") if isinstance(time, str) else time
    if not _is_moment(seconds):
        raise UserError(
            f"the time of the request is {time!r}; expected seconds since 1970, or a date such as "
            "2024-05-31 or 2024-05-31 18:00, before 2106"
        )
    return int(seconds)


def whole_seconds(timestamps: Times, name: str) -> list[int | None]:
    """Times as Python numbers; `name` is what to call them in an error.

    Raises:
      UserError: one is no whole number, or out of range.
    """
    for time in timestamps:
        if time is not None and not _is_moment(time):
            raise UserError(
                f"{name} holds {time!r}; expected seconds since 1970 as whole numbers, before "
                "2106, or None where the time is not known"
            )
    return [None if time is None else int(time) for time in timestamps]


def is_time(found: pa.DataType) -> bool:
    """Whether `column_of_times` reads a type."""
    types = pa.types
    number = types.is_floating(found) or types.is_integer(found)
    return bool(number or types.is_timestamp(found) or types.is_date(found))


def column_of_times(
    values: pa.ChunkedArray,
    rows: npt.NDArray[np.integer],
    name: str,
    where: Callable[[int], str],
) -> npt.NDArray[np.int64]:
    """A column of numbers, timestamps or dates as seconds since 1970, `UNKNOWN` for null and NaN.

    Args:
      values: M values.
      rows: `[M]` the row that each belongs to.
      name: of the column.
      where: from a row to where it stands, for the message.

    Raises:
      UserError: a time is out of range.
    """
    times = _seconds(values)
    wrong = np.flatnonzero((times != UNKNOWN) & ((times < 0) | (times > _LATEST)))
    if len(wrong):
        first = int(wrong[0])
        raise UserError(
            f"{where(int(rows[first]))}: {name} holds {times[first]}; expected seconds since 1970 "
            "(whole numbers in milliseconds or finer have to be divided first), timestamps or "
            "dates, before 2106"
        )
    return times


def _seconds(values: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    kind = values.type
    if pa.types.is_timestamp(kind):
        values = values.cast(pa.timestamp("s", kind.tz), safe=False)
    elif pa.types.is_date(kind):
        values = values.cast(pa.timestamp("s"))
    elif pa.types.is_floating(kind):
        numbers = np.floor(values.cast(pa.float64()).to_numpy(zero_copy_only=False))
        limited = np.clip(numbers, -1, 2**62)  # so that int64 can hold them
        return np.where(np.isnan(numbers), UNKNOWN, limited).astype(np.int64)
    filled = pc.fill_null(values.cast(pa.int64(), safe=False), UNKNOWN)
    seconds: npt.NDArray[np.int64] = filled.to_numpy(zero_copy_only=False)
    return seconds


def _is_moment(time: object) -> bool:
    whole = isinstance(time, int | np.integer) and not isinstance(time, bool)
    return whole and 0 <= int(time) <= _LATEST  # type: ignore[call-overload]
