"""Columns: the names of a log's columns, and how they are found in a table."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from bert4rec_jax.data.delimited import is_utf8, shorten
from bert4rec_jax.data.options import TimeUnit, column_option, option
from bert4rec_jax.errors import UserError


def _event(name: object) -> str:
    """An event as it is compared with those of a log, where `fields.chosen` writes 4.0 as `4`."""
    if isinstance(name, bool):
        return str(name).lower()
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a `csv`, `tsv`, `jsonl` or `parquet` table, and what they hold.

    Attributes:
      user: external user ids.
      item: external item ids.
      timestamp: times. None: the log has none, and its rows are in time order.
      rating: ratings. None: the log has none.
      event: type of the event, such as view or purchase. None: every row is an interaction.
      events: types that count as interactions; rows of other types are left out.
      unit: unit of times that are numbers.
    """

    user: str = "user_id"
    item: str = "item_id"
    timestamp: str | None = "timestamp"
    rating: str | None = "rating"
    event: str | None = None
    events: Sequence[str] = ()
    unit: TimeUnit = "s"

    def __post_init__(self) -> None:
        events = (self.events,) if isinstance(self.events, str) else map(_event, self.events)
        object.__setattr__(self, "events", tuple(events))
        if self.unit not in get_args(TimeUnit):
            raise UserError(
                f"the unit of times is {self.unit!r}; expected one of "
                f"{', '.join(get_args(TimeUnit))}"
            )
        for name in self._named:
            if name is not None and not isinstance(name, str):
                raise UserError(f"the name of a column is {name!r}; expected text")
        self._require_a_role_each()
        if bool(self.events) != (self.event is not None):
            raise UserError(
                f"{option('--event-column', 'event')} names the column of events, and "
                f"{option('--events', 'events')} those to keep: give both, or neither"
            )

    def find(self, path: Path, present: Sequence[str], *, lenient: bool) -> dict[str, str]:
        """Role (user, item, timestamp, rating, event) -> the full name of its column in a table.

        Args:
          path: the table, for messages.
          present: its columns; a name may carry a type, as RecBole's `user_id:token` does.
          lenient: the rating column may be missing if it has its default name, and so may the
            timestamp column if no other column is left that could hold the time. If there is one, a
            missing timestamp is an error: mistaking the order of the rows for the order in time
            would spoil every history.

        Raises:
          UserError: a column is missing, two columns have its name, or names are not UTF-8.
        """
        whole = list(present)
        present = [name if name in self._named else _TYPE.sub("", name) for name in whole]
        full = dict(zip(present, whole))
        wanted = {"user": self.user, "item": self.item}
        if self.rating and not (
            lenient and self.rating == Columns.rating and self.rating not in present
        ):
            wanted["rating"] = self.rating
        if self.event is not None:
            wanted["event"] = self.event
        untold = set(present) - set(wanted.values())
        if self.timestamp and not (lenient and self.timestamp == Columns.timestamp and not untold):
            wanted["timestamp"] = self.timestamp
        refuse_semicolons(path, present)
        for role, name in wanted.items():
            if present.count(name) != 1:
                unread = next((x for x in whole if not is_utf8(x)), None)
                if unread is not None:
                    raise UserError(
                        f"{path}: the name of a column, "
                        f"{shorten(unread.encode(errors='surrogateescape'))}, is not UTF-8 text; "
                        "convert the file to UTF-8"
                    )
                count = "two columns" if name in present else "no column"
                unnamed = any(name.replace(".", "", 1).isdigit() for name in present)
                raise UserError(
                    f"{path} has {count} {name!r} for the {role}; its columns are "
                    f"{', '.join(map(repr, present))}: prepare it with {column_option(role)}"
                    + _NONE.get(role, "")
                    + ("; or put a line with names before the first row, if that is one" * unnamed)
                )
        return {role: full[name] for role, name in wanted.items()}

    def _require_a_role_each(self) -> None:
        """Check that no column is two of user, item, time and rating; events may share a column."""
        roles: dict[str, str] = {}
        for role in ("user", "item", "timestamp", "rating"):
            name = getattr(self, role)
            if name in roles:
                raise UserError(
                    f"the column {name!r} is named as {roles[name]} and as {role}; expected a "
                    f"column of its own for each: name another {roles[name]} or {role} column"
                    + ", or None if there is none"
                    * (role in _OPTIONAL)
                )
            if name is not None:
                roles[name] = role

    @property
    def _named(self) -> tuple[str | None, ...]:
        return self.user, self.item, self.timestamp, self.rating, self.event


def columns_of(values: Mapping[str, Any]) -> Columns:
    """Build `Columns` from a dict of its attributes.

    Raises:
      UserError: a key is not an attribute of `Columns`, or see `Columns`.
    """
    known = [field.name for field in dataclasses.fields(Columns)]
    for key in values:
        if key not in known:
            raise UserError(f"columns has the key {key!r}; expected some of {', '.join(known)}")
    return Columns(**values)


_OPTIONAL = ("timestamp", "rating")
_TYPE = re.compile(r":(token|float)(_seq)?$")  # RecBole writes `user_id:token`
MOVIELENS = Columns("userId", "movieId", "timestamp", "rating")

_NONE = {
    "timestamp": ", or None if the rows are in time order",
    "rating": ", or None if there are none",
}


def refuse_semicolons(path: Path, names: Sequence[str]) -> None:
    """Raise an error for a table whose only column has several names in one."""
    if len(names) == 1 and ";" in names[0]:
        raise UserError(
            f"{path} is cut by semicolons ({names[0]!r}); save it with commas, or with tabs as .tsv"
        )
