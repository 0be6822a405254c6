"""Times: when items were seen and requests are made, from tables and from Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert4rec_jax.checks import ConfigError, date_of
from bert4rec_jax.data.fields import NAMES_OF_UNITS, PARTS_OF_A_SECOND, Where
from bert4rec_jax.errors import UserError

# Seconds since 1970, or a date with or without a time: UTC if it has no time zone.
RequestTime = int | str | date | datetime | np.datetime64
Times = Sequence[RequestTime | None]  # None (or a NaT) where the time is not known
UNKNOWN = int(np.iinfo(np.int64).min)  # in place of a time, in arrays
_LATEST = 2**32 - 1  # seconds since 1970, in 2106


def moment_of(time: RequestTime) -> int:
    """A time as seconds since 1970, without parts of a second.

    Raises:
      UserError: it is no `RequestTime`, or out of range.
    """
    found = _of_python(time)
    if isinstance(found, str):
        date_of(found, "the time of the request")
    seconds = _second_of(found)
    if isinstance(found, date):  # `datetime` is a subclass
        found = found.isoformat()
    if not _is_moment(seconds):
        raise UserError(
            f"the time of the request is {found!r}; expected seconds since 1970, or a date such as "
            f"2024-05-31 or 2024-05-31 18:00, before 2106{_remedy(seconds)}"
        )
    return int(seconds)


def require_in_training(moment: int, began: int, what: str) -> None:
    """Refuse the time of a request before the log that the model was trained on.

    Args:
      moment: seconds since 1970.
      began: when that log begins; 0 where it is not known.
      what: what has this time, for the message.

    Raises:
      UserError: it lies before.
    """
    if moment < began:
        raise UserError(
            f"{what} is {moment} ({_written(moment)}), before the log that the model was trained "
            f"on begins ({_written(began)}); expected a later time, in seconds since 1970 if it is "
            "a number: without any, it is the end of the training data or of the history"
        )


def whole_seconds(timestamps: Times, name: str) -> list[int | None]:
    """Times as Python numbers; `name` is what to call them in an error.

    Parts of a second are left out, as in training.

    Raises:
      UserError: one is no whole number and no date, or out of range.
    """
    found = [_second_of(time) for time in timestamps]
    for time, second in zip(timestamps, found):
        if second is not None and not _is_moment(second):
            raise UserError(
                f"{name} holds {time!r}; expected seconds since 1970 as whole numbers, or dates "
                "such as '2024-05-31 18:00', before 2106, or None where the time is not "
                f"known{_remedy(second)}"
            )
    return [None if second is None else int(second) for second in found]


def is_time(found: pa.DataType) -> bool:
    """Whether `column_of_times` reads a type."""
    types = pa.types
    return bool(_is_number(found) or types.is_timestamp(found) or types.is_date(found))


def column_of_times(
    values: pa.ChunkedArray,
    rows: npt.NDArray[np.integer],
    name: str,
    where: Where,
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
        found = values[first].as_py() if _is_number(values.type) else int(times[first])
        if isinstance(found, float) and found.is_integer():
            found = int(found)
        raise UserError(
            f"{where(int(rows[first]))}: {name} holds {found}; expected seconds since 1970, "
            f"timestamps or dates, before 2106{_remedy(found)}"
        )
    return times


def require_ascending(
    times: npt.NDArray[np.int64], rows: npt.NDArray[np.integer], where: Where
) -> None:
    """Refuse histories whose times go back; unknown ones are passed over.

    Args:
      times: `[M]` seconds since 1970, or `UNKNOWN`.
      rows: `[M]` the history that each belongs to, ascending.
      where: from a row to where it stands, for the message.

    Raises:
      UserError: a time is earlier than the one before it.
    """
    known = times != UNKNOWN
    times, rows = times[known], rows[known]
    back = np.flatnonzero((rows[1:] == rows[:-1]) & (times[1:] < times[:-1]))
    if len(back):
        before, after = (int(times[back[0] + step]) for step in (0, 1))
        raise UserError(
            f"{where(int(rows[back[0]]))}: timestamps go back from {before} ({_written(before)}) "
            f"to {after} ({_written(after)}); expected the oldest first, as in the history: sort "
            "both by time"
        )


def _of_python(time: Any) -> Any:
    """A time of NumPy as one of Python, None for NaT; anything else as it is."""
    return time.astype("datetime64[us]").item() if isinstance(time, np.datetime64) else time


def _second_of(time: Any) -> Any:
    """The second since 1970 in which a date or its text lies; anything else as it is."""
    time = _of_python(time)
    if isinstance(time, date) and time != time:  # NaT of pandas
        return None
    if isinstance(time, str):
        try:
            time = date_of(time, "the time")
        except ConfigError:
            return time
    if not isinstance(time, date):
        return time
    if not isinstance(time, datetime):
        time = datetime(time.year, time.month, time.day)
    return math.floor((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


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


def _is_number(found: pa.DataType) -> bool:
    return bool(pa.types.is_floating(found) or pa.types.is_integer(found))


def _remedy(time: object) -> str:
    """How to make seconds of a number in a finer unit; empty for anything else."""
    if isinstance(time, int | float | np.number) and time > _LATEST:
        for unit, parts in PARTS_OF_A_SECOND.items():
            if time / parts <= _LATEST:
                return f"; if these are {NAMES_OF_UNITS[unit]}, divide them by {parts:,}"
    return ""


def _written(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _is_moment(time: object) -> bool:
    whole = isinstance(time, int | np.integer) and not isinstance(time, bool)
    return whole and 0 <= int(time) <= _LATEST  # type: ignore[call-overload]
