"""KnownUsers: the features that a table has for the users of a log."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.delimited import shorten
from bert4rec_jax.data.records import has_types, read_records
from bert4rec_jax.errors import Notify, UserError
from bert4rec_jax.features.user_columns import Where, to_number
from bert4rec_jax.features.user_encoding import UserEncoding, UserRows, fit

USER = "user_id"
# Other columns of a request.
RESERVED = ("history", "ratings", "candidates", "exclude", "timestamps", "request_time")
_LABELS = re.compile(r"__index_level_\d+__")  # a column of row labels, which pandas adds to Parquet


@dataclass(frozen=True, eq=False)
class KnownUsers:
    """The features of a log's users.

    Attributes:
      matrix: `[U + 1, G]`: row u + 1 is user u; row 0 is a user about whom nothing is known.
      encoding: the encoding that made it.
    """

    matrix: UserRows
    encoding: UserEncoding

    def of(self, users: npt.NDArray[np.int64]) -> dict[UserEncoding, UserRows]:
        """The rows `[n, G]` of n users, in the form of `serving.requests.Requests.users`."""
        return {self.encoding: self.matrix[users + 1]}


def read_users(
    path: Path,
    user_ids: Sequence[str],
    trained: npt.NDArray[np.bool_],
    *,
    like: UserEncoding | None = None,
    notify: Notify = lambda sentence: None,
) -> KnownUsers:
    """Read a table of user features: `user_id`, and a column per feature.

    The labels of rows that pandas keeps in Parquet, `__index_level_0__`, are no feature.

    Args:
      path: see `records.read_records`. In formats without types, such as CSV, a column of text is
        read as numbers if all its values are numbers.
      user_ids: the log's user ids, U of them.
      trained: `[U]`: mask of the users with training rows; vocabularies, means and deviations are
        fitted on these only.
      like: the encoding to use; None fits one on this table.
      notify: called with a sentence on what was found.

    Raises:
      UserError: the file cannot be read, has no `user_id` or no other column, has two rows for one
        user or an invalid value, or has no user with training rows.
    """
    places, numbers, values = _rows(path, user_ids)
    rows = np.array([number for same in numbers for number in same], np.int64)
    records = np.repeat(np.arange(len(numbers)), [len(same) for same in numbers])
    train_on = np.zeros(len(numbers), bool)
    train_on[records[trained[rows]]] = True

    def where(row: int) -> str:
        return places[row]

    if not train_on.any():
        shown = user_ids[int(np.argmax(trained))]
        raise UserError(
            f"{path}: none of its users (such as {_first_id(path)!r}) is one that is trained on "
            f"(such as {shown!r}); write ids as in the log: text keeps its zeros, whole numbers "
            "have none"
        )
    if like is None and not has_types(path):
        values = {name: _typed(name, column, where) for name, column in values.items()}
    encoding = like or fit(values, train_on, where)
    matrix = encoding.unknown(len(user_ids) + 1)
    matrix[rows + 1] = encoding.encode(values, len(numbers), where)[records]
    notify(
        f"  {path.name} knows {len(numbers):,} of {len(set(user_ids)):,} users: "
        f"{', '.join(encoding.names)} ({encoding.width} columns)"
    )
    return KnownUsers(matrix, encoding)


def read_user_columns(path: Path, user_ids: Sequence[str]) -> dict[str, list[Any]]:
    """The columns of a table of user features: name -> U values, None for users not in the table.

    Values stay as they are in the table, for an encoding to interpret.

    Args:
      path: as for `read_users`.
      user_ids: U user ids, each once.

    Raises:
      UserError: the file cannot be read, has no `user_id` or no other column, has two rows for one
        user, or none for any of these users.
    """
    _, numbers, values = _rows(path, user_ids)
    if not numbers:
        raise UserError(
            f"{path}: none of its users (such as {_first_id(path)!r}) is in the log (such as "
            f"{user_ids[0]!r}); write ids as in the log"
        )
    columns: dict[str, list[Any]] = {}
    for name, column in values.items():
        columns[name] = [None] * len(user_ids)
        for (number,), value in zip(numbers, column):
            columns[name][number] = value
    return columns


def _rows(path: Path, user_ids: Sequence[str]) -> tuple[list[str], list[list[int]], dict[str, Any]]:
    """The log's users in the table: their places, their indices in `user_ids`, and their values.

    A user id that occurs several times in `user_ids`, as with the cold-items split, has several
    indices. The values are given by column name, None where a JSON object lacks the column.
    """
    numbers: dict[str, list[int]] = {}
    for number, user in enumerate(user_ids):
        numbers.setdefault(user, []).append(number)
    places: list[str] = []
    rows: list[list[int]] = []
    values: dict[str, list[Any]] = {}
    seen: dict[str, str] = {}
    for where, record in read_records(path, what="user"):
        if not seen and USER not in record:
            raise UserError(
                f"{path} has no column {USER!r}; its columns are {', '.join(map(repr, record))}: "
                "rename the one with the ids of the log's users"
            )
        for name in record:
            if name != USER and not _LABELS.fullmatch(name):
                values.setdefault(name, [None] * len(rows))
        user = _id(where, record.get(USER))
        if user in seen:
            raise UserError(
                f"{where}: the user {user!r} was in {seen[user]} already; expected one row per "
                "user: remove one of them"
            )
        seen[user] = where
        if user in numbers:
            places.append(where)
            rows.append(numbers[user])
            for name, column in values.items():
                column.append(record.get(name))
    _check_names(path, list(values))
    return places, rows, values


def _check_names(path: Path, names: list[str]) -> None:
    """Check the names of the columns besides that of ids."""
    if not names:
        raise UserError(
            f"{path} has no column but {USER!r}; expected some that say something about users"
        )
    for name in names:
        if name in RESERVED or not name.strip():
            raise UserError(
                f"{path} has a column {name!r}; expected another name, as "
                f"{', '.join(RESERVED)} are what requests are made of: rename or remove it"
            )


def _id(where: str, value: object) -> str:
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return str(value)
    came = "is empty" if value in (None, "") else f"{shorten(value)} is not valid"
    raise UserError(
        f"{where}: the {USER} {came}; expected text or a whole number, as in the log: fix or "
        "remove the row"
    )


def _first_id(path: Path) -> str:
    return str(next(iter(read_records(path, (USER,)))).values[USER])


def _typed(name: str, texts: Sequence[str], where: Where) -> Sequence[Any]:
    """Convert a column of text to numbers if its values are numbers; empty text becomes None.

    Raises:
      UserError: more than half of the values are numbers, but not all: more likely a mistake than a
        category.
    """
    given = [(row, text) for row, text in enumerate(texts) if text and text.strip()]
    others = [row for row, text in given if to_number(text) is None]
    if len(others) * 2 >= len(given):
        return texts
    if others:
        row = others[0]
        raise UserError(
            f"{where(row)}: the {name} {shorten(texts[row])} is not valid; expected a number, as "
            f"in {len(given) - len(others):,} other rows: fix or empty it, or begin the codes of "
            "a category with a letter"
        )
    numbers: Mapping[int, float | None] = {row: to_number(text) for row, text in given}
    return [numbers.get(row) for row in range(len(texts))]
