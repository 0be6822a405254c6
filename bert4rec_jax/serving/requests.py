"""Requests: reads histories, candidates and exclusions from Arrow columns of ids, into tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert4rec_jax.data.batch import SECONDS_PER_DAY
from bert4rec_jax.data.catalog import FIRST_ITEM, PAD, Catalog
from bert4rec_jax.data.fields import Where
from bert4rec_jax.errors import UserError
from bert4rec_jax.features.user_encoding import UserEncoding
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.ragged import Ragged
from bert4rec_jax.serving.times import (
    UNKNOWN,
    column_of_times,
    is_time,
    require_ascending,
    require_in_training,
)

USER, HISTORY, RATINGS, CANDIDATES, EXCLUDE = (
    "user_id", "history", "ratings", "candidates", "exclude",
)  # fmt: skip
TIMESTAMPS, REQUEST_TIME = "timestamps", "request_time"
REQUIRED = (USER, HISTORY)
COLUMNS = (USER, HISTORY, RATINGS, CANDIDATES, EXCLUDE)
TIMES = (TIMESTAMPS, REQUEST_TIME)  # more columns, for a model that reads times
LATE = 60 * SECONDS_PER_DAY  # after the training data, from when on its age is worth a word


@dataclass(frozen=True)
class Requests:
    """N requests in tokens. Ids that the catalog does not have are left out and counted.

    Attributes:
      histories: everything the user has seen, oldest first.
      ratings: `[M]` float32, one per value of `histories`; NaN for none.
      candidates: the only items to rank, or None for the whole catalog.
      excluded: items that may not be listed, besides those seen.
      counts: counts of requests and ids, by name; see `docs/serving.md`.
      users: user encoding -> `[N, G]` user features; features are unknown for an encoding that is
        not there.
      times: `[M]` int64 seconds since 1970, one per value of `histories`, or `times.UNKNOWN`; None
        if all are unknown.
      at: `[N]` int64, those of the requests; None where no model reads times.
    """

    histories: Ragged
    ratings: npt.NDArray[np.float32]
    candidates: Ragged | None
    excluded: Ragged
    counts: Counter[str]
    users: Mapping[UserEncoding, npt.NDArray[np.float32]] = field(default_factory=dict)
    times: npt.NDArray[np.int64] | None = None
    at: npt.NDArray[np.int64] | None = None

    def moments(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """The times of the requests, `[N]`, and of the values of `histories`, `[M]`.

        An event of unknown time, or of a later one, happens at the time of its request. All are 0
        where no model reads times.
        """
        at = np.zeros(len(self), np.int64) if self.at is None else self.at
        then = at[self.histories.rows]
        if self.times is not None:
            then = np.where(self.times == UNKNOWN, then, np.minimum(self.times, then))
        return at.astype(np.uint32), then.astype(np.uint32)

    def __len__(self) -> int:
        return len(self.histories)


class RequestReader:
    """Turns tables of requests into tokens.

    Args:
      catalog: gives external ids their tokens.
      encodings: the user encodings of the models; their columns are read by name.
      times: whether a model reads times.
      began, ended: when the training data begins and ends, in seconds since 1970.
    """

    def __init__(
        self,
        catalog: Catalog,
        encodings: Sequence[UserEncoding] = (),
        *,
        times: bool = False,
        began: int = 0,
        ended: int = 0,
    ) -> None:
        self._catalog = catalog
        self._ids = pa.array(catalog.item_ids, pa.string())
        self._encodings = encodings
        self.user_columns = tuple(dict.fromkeys(name for x in encodings for name in x.names))
        self.times = times
        self._began, self._ended = began, ended

    @classmethod
    def of(cls, bundle: Bundle) -> RequestReader:
        """The reader of a bundle's requests."""
        if not bundle.asks_times:
            return cls(bundle.catalog, bundle.user_encodings)
        began, ended = bundle.trained_from, bundle.trained_until
        return cls(bundle.catalog, bundle.user_encodings, times=True, began=began, ended=ended)

    @property
    def more_columns(self) -> tuple[str, ...]:
        """The columns that these models read besides `COLUMNS`."""
        return (*self.user_columns, *(TIMES if self.times else ()))

    @property
    def id_columns(self) -> tuple[str, ...]:
        """The columns whose whole numbers are ids or names."""
        named = (name for encoding in self._encodings for name in encoding.named)
        return (USER, HISTORY, CANDIDATES, EXCLUDE, *named)

    def read(self, table: pa.Table, where: Where, *, request_time: int | None = None) -> Requests:
        """The requests of a table whose columns `check_columns` has accepted.

        Args:
          table: columns of COLUMNS; the order of rows is kept.
          where: from a row of the table to where it stands, for messages.
          request_time: seconds since 1970, for requests that have no time of their own. None: when
            the training data ends, or the history, if it is later.

        Raises:
          UserError: a history and its ratings or times differ in length, a time is out of range or
            before the training data, the times of a history go back, or a user feature has another
            type than in training.
        """
        counts: Counter[str] = Counter(requests=len(table))
        given, unknown = self._tokens(table, HISTORY, counts)
        ratings = self._ratings(table, given, where)
        times = at = None
        if self.times:
            times = self._times(table, given, where)
            at = self._asked(table, given, times, where, request_time)
            later = (times != UNKNOWN) & (times > at[given.rows])
            counts["later_history_items"] += int(later.sum())
            counts["late_requests"] += int((at > self._ended + LATE).sum())
        known = given.values != PAD
        histories = given.where(known)
        candidates = None
        counts["unknown_history_items"] += unknown
        counts["empty_histories"] += int((histories.lengths == 0).sum())
        if CANDIDATES in table.column_names:
            candidates, unknown = self._tokens(table, CANDIDATES, counts)
            candidates = candidates.where(candidates.values != PAD)
            counts["candidates"] += len(candidates.values) + unknown
            counts["unknown_candidates"] += unknown
        excluded = Ragged.empty(len(table))
        if EXCLUDE in table.column_names:
            excluded, unknown = self._tokens(table, EXCLUDE, counts)
            excluded = excluded.where(excluded.values != PAD)
            counts["unknown_excluded_items"] += unknown
        counts["history_items"] += len(given.values)
        named = [name for name in self.user_columns if name in table.column_names]
        users = self.users(
            {name: table[name].to_pylist() for name in named},
            len(table),
            where,
        )
        times = None if times is None else times[known]
        return Requests(histories, ratings[known], candidates, excluded, counts, users, times, at)

    def users(
        self, values: Mapping[str, Sequence[Any]], count: int, where: Where
    ) -> dict[UserEncoding, npt.NDArray[np.float32]]:
        """Encode the features of n users, as in `Requests.users`.

        Args:
          values: name -> n values; a feature that is not there is unknown.
          count: n.
          where: from a user's index to where the values come from, for messages.

        Raises:
          UserError: a value has another type than in training.
        """
        return {encoding: encoding.encode(values, count, where) for encoding in self._encodings}

    def unknown(self, ids: list[str]) -> list[str]:
        """The ids that the catalog does not have, each once, in order of first appearance."""
        found = self._find(pa.chunked_array([ids], pa.string()))
        return list(dict.fromkeys(name for name, token in zip(ids, found) if token == PAD))

    def _tokens(self, table: pa.Table, name: str, counts: Counter[str]) -> tuple[Ragged, int]:
        """A column of lists as tokens, PAD for ids not in the catalog, and how many those are."""
        values, lengths = _flat(table, name, counts)
        tokens = self._find(_as_text(values))
        return Ragged.from_lengths(tokens, lengths), int((tokens == PAD).sum())

    def _find(self, ids: pa.ChunkedArray) -> npt.NDArray[np.int32]:
        """The token of each id, PAD for those that the catalog does not have."""
        if len(ids) < len(self._ids):  # Arrow would hash the whole catalog again in every call
            return self._catalog.find(ids.to_pylist())
        index = pc.fill_null(pc.index_in(ids, value_set=self._ids), PAD - FIRST_ITEM)
        tokens: npt.NDArray[np.int32] = index.to_numpy(zero_copy_only=False) + FIRST_ITEM
        return tokens.astype(np.int32)

    def _ratings(self, table: pa.Table, histories: Ragged, where: Where) -> npt.NDArray[np.float32]:
        ratings = np.full(len(histories.values), np.nan, np.float32)
        values, given = _beside(table, RATINGS, histories, where)
        if values is not None:
            numbers = values.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
            ratings[given] = numbers
        return ratings

    def _times(self, table: pa.Table, histories: Ragged, where: Where) -> npt.NDArray[np.int64]:
        times = np.full(len(histories.values), UNKNOWN)
        values, given = _beside(table, TIMESTAMPS, histories, where)
        if values is not None:
            times[given] = column_of_times(values, histories.rows[given], TIMESTAMPS, where)
            require_ascending(times, histories.rows, where)
        return times

    def _asked(
        self,
        table: pa.Table,
        histories: Ragged,
        times: npt.NDArray[np.int64],
        where: Where,
        request_time: int | None,
    ) -> npt.NDArray[np.int64]:
        if request_time is None:
            at = np.full(len(table), self._ended)
            np.maximum.at(at, histories.rows, times)
        else:
            at = np.full(len(table), request_time)
        if REQUEST_TIME in table.column_names:
            rows = np.arange(len(table))
            own = column_of_times(table[REQUEST_TIME], rows, REQUEST_TIME, where)
            at = np.where(own == UNKNOWN, at, own)
        early = np.flatnonzero(at < self._began)
        if len(early):
            row = int(early[0])
            require_in_training(int(at[row]), self._began, f"{where(row)}: {REQUEST_TIME}")
        return at


def check_columns(schema: pa.Schema, source: str, *, times: bool = False) -> None:
    """Refuse a table whose columns are not those of requests, with `times` also of those of times.

    Raises:
      UserError: a required column is missing, or a column has another type or occurs twice.
    """
    names = ", ".join(map(repr, schema.names))
    known = (*COLUMNS, *TIMES) if times else COLUMNS
    for name in REQUIRED:
        if name not in schema.names:
            raise UserError(
                f"{source} has no column {name!r}; its columns are {names}. Requests need "
                f"{' and '.join(map(repr, REQUIRED))} and may have "
                f"{', '.join(map(repr, known[len(REQUIRED) :]))}"
            )
    for name in known:
        if name not in schema.names:
            continue
        if schema.names.count(name) > 1:
            raise UserError(
                f"{source} has {schema.names.count(name)} columns called {name!r}; expected one: "
                "rename the others"
            )
        found = schema.field(name).type
        if name == USER:
            valid, expected = _is_id(found), "text or whole numbers"
        elif name == RATINGS:
            valid = _is_list_of(found, _is_number) or pa.types.is_null(found)
            expected = "lists of numbers"
        elif name == TIMESTAMPS:
            valid = _is_list_of(found, is_time) or pa.types.is_null(found)
            expected = "lists of times (seconds since 1970, timestamps or dates)"
        elif name == REQUEST_TIME:
            valid = is_time(found) or pa.types.is_null(found)
            expected = "times (seconds since 1970, timestamps or dates)"
        else:
            valid = _is_list_of(found, _is_id)
            expected = "lists of item ids (text or whole numbers)"
        if not valid:
            raise UserError(f"{source}: column {name!r} is of type {found}; expected {expected}")


def table_of(
    histories: list[list[str]],
    *,
    ratings: list[list[float]] | None = None,
    timestamps: list[list[int | None]] | None = None,
    candidates: list[list[str]] | None = None,
    exclude: list[list[str]] | None = None,
) -> pa.Table:
    """Make a table of requests from Python lists."""
    texts, numbers = pa.list_(pa.string()), pa.list_(pa.float32())
    columns: dict[str, Any] = {HISTORY: pa.array(histories, texts)}
    if ratings is not None:
        columns[RATINGS] = pa.array(ratings, numbers)
    if timestamps is not None:
        columns[TIMESTAMPS] = pa.array(timestamps, pa.list_(pa.int64()))
    if candidates is not None:
        columns[CANDIDATES] = pa.array(candidates, texts)
    if exclude is not None:
        columns[EXCLUDE] = pa.array(exclude, texts)
    return pa.table(columns)


def _beside(
    table: pa.Table, name: str, histories: Ragged, where: Where
) -> tuple[pa.ChunkedArray | None, npt.NDArray[np.bool_]]:
    """The values of a column of lists, one list per history and as long; where it is null, none.

    Returns:
      The values, None if there is no such column, and a `[M]` mask of the items that have one.
    """
    if name not in table.column_names or pa.types.is_null(table[name].type):
        return None, np.zeros(len(histories.values), bool)
    values, lengths = _flat(table, name, Counter())
    listed = table[name].is_valid().to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(listed & (lengths != histories.lengths))
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{where(row)}: {lengths[row]} {name} for {histories.lengths[row]} items in "
            f"{HISTORY}; give one per item, null where there is none"
        )
    return values, listed[histories.rows]


def _flat(
    table: pa.Table, name: str, counts: Counter[str]
) -> tuple[pa.ChunkedArray, npt.NDArray[np.int64]]:
    """The values of a column of lists and the length of each; a null is an empty list.

    Chunks stay apart: one array cannot hold more than 2 GiB of text.
    """
    column = table[name]
    counts["null_lists"] += column.null_count
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    return pc.list_flatten(column), lengths.astype(np.int64)


def _as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(values.type):
        decoded = [chunk.dictionary_decode() for chunk in values.chunks]
        values = pa.chunked_array(decoded, values.type.value_type)
    return values.cast(pa.string())


def _is_list_of(found: pa.DataType, valid: Callable[[pa.DataType], bool]) -> bool:
    """Whether a type is lists of valid values, or of null: writers may give that to empty lists."""
    types = pa.types
    lists = types.is_list(found) or types.is_large_list(found) or types.is_fixed_size_list(found)
    return bool(lists and (valid(found.value_type) or types.is_null(found.value_type)))


def _is_id(found: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(found):
        found = found.value_type
    text = types.is_string(found) or types.is_large_string(found) or types.is_string_view(found)
    return bool(text or types.is_integer(found))


def _is_number(found: pa.DataType) -> bool:
    return bool(pa.types.is_floating(found) or pa.types.is_integer(found))
