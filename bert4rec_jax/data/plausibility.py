"""Plausibility: whether the times of a whole log look like times."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from bert4rec_jax.data.fields import LATEST, NAMES_OF_UNITS, PARTS_OF_A_SECOND
from bert4rec_jax.data.options import TimeUnit, column_option, option, unit_option
from bert4rec_jax.errors import UserError

EARLIEST = 315_532_800  # 1980-01-01


def require_fitting_unit(log: Path, times: tuple[int, int], unit: TimeUnit) -> None:
    """Refuse times before 1980 that lie after it in a coarser unit, such as seconds read as ms.

    Args:
      log: the log, for the message.
      times: its first and last time, in seconds since 1970.
      unit: the unit in which numbers were read.
    """
    if times[1] >= EARLIEST:
        return
    for other, parts in PARTS_OF_A_SECOND.items():
        last = times[1] * PARTS_OF_A_SECOND[unit] // parts
        if EARLIEST <= last <= LATEST:
            raise UserError(
                f"{log}: read as {NAMES_OF_UNITS[unit]} since 1970, the last time is "
                f"{_moment(times[1])}; expected times after 1980. Read as {NAMES_OF_UNITS[other]} "
                f"it is about {_moment(last)}: prepare the log with {unit_option(other)}"
            )


def doubt(times: tuple[int, int], unit: TimeUnit) -> str | None:
    """A sentence on times that are possible but probably of another column; None if there is none.

    Args:
      times: see `require_fitting_unit`.
      unit: see `require_fitting_unit`.
    """
    first, last = map(_moment, times)
    if times[0] == times[1]:
        return (
            f"all times are {first}, to the second; if this is not what happened, name the "
            f"column of times with {column_option('timestamp')}, or None if the rows are in time "
            "order"
        )
    if times[1] < EARLIEST:
        return (
            f"all times lie before 1980 ({first} to {last}), read as {NAMES_OF_UNITS[unit]} "
            "since 1970; this does no harm if they only count the order; else name the column of "
            f"times with {column_option('timestamp')} and its unit with "
            + option("--timestamp-unit", "columns={'unit': UNIT}")
        )
    return None


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
