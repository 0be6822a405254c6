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

from bert4rec_jax.data.catalog import FIRST_ITEM, PAD, Catalog
from bert4rec_jax.errors import UserError
from bert4rec_jax.features.user_encoding import UserEncoding
from bert4rec_jax.serving.ragged import Ragged

USER, HISTORY, RATINGS, CANDIDATES, EXCLUDE = (
    "user_id", "history", "ratings", "candidates", "exclude",
)  # fmt: skip
REQUIRED = (USER, HISTORY)
COLUMNS = (USER, HISTORY, RATINGS, CANDIDATES, EXCLUDE)


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
    """

    histories: Ragged
    ratings: npt.NDArray[np.float32]
    candidates: Ragged | None
    excluded: Ragged
    counts: Counter[str]
    users: Mapping[UserEncoding, npt.NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.histories)


class RequestReader:
    """Turns tables of requests into tokens.

    Args:
      catalog: gives external ids their tokens.
      encodings: the user encodings of the models; their columns are read by name.
    """

    def __init__(self, catalog: Catalog, encodings: Sequence[UserEncoding] = ()) -> None:
        self._catalog = catalog
        self._ids = pa.array(catalog.item_ids, pa.string())
        self._encodings = encodings
        self.user_columns = tuple(dict.fromkeys(name for x in encodings for name in x.names))

    def read(self, table: pa.Table, *, source: str, first_row: int = 0) -> Requests:
        """The requests of a table whose columns `check_columns` has accepted.

        Args:
          table: columns of COLUMNS; the order of rows is kept.
          source: what to call the table in an error.
          first_row: number in `source` of the table's first row.

        Raises:
          UserError: a history and its ratings differ in length; or a user feature has another type
            than in training.
        """
        counts: Counter[str] = Counter(requests=len(table))
        given, unknown = self._tokens(table, HISTORY, counts)
        ratings = self._ratings(table, given, source, first_row)
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
            lambda row: f"{source}, row {first_row + row}",
        )
        return Requests(histories, ratings[known], candidates, excluded, counts, users)

    def users(
        self, values: Mapping[str, Sequence[Any]], count: int, where: Callable[[int], str]
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

    def _ratings(
        self, table: pa.Table, histories: Ragged, source: str, first_row: int
    ) -> npt.NDArray[np.float32]:
        ratings = np.full(len(histories.values), np.nan, np.float32)
        if RATINGS not in table.column_names or pa.types.is_null(table[RATINGS].type):
            return ratings
        values, lengths = _flat(table, RATINGS, Counter())
        rated = table[RATINGS].is_valid().to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(rated & (lengths != histories.lengths))
        if len(wrong):
            row = int(wrong[0])
            raise UserError(
                f"{source}, row {first_row + row}: {lengths[row]} {RATINGS} for "
                f"{histories.lengths[row]} items in {HISTORY}; give one rating per item, null "
                "where there is none"
            )
        numbers = values.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        ratings[rated[histories.rows]] = numbers
        return ratings


def check_columns(schema: pa.Schema, source: str) -> None:
    """Refuse a table whose columns are not those of requests.

    Raises:
      UserError: a required column is missing, or a column has another type or occurs twice.
    """
    names = ", ".join(map(repr, schema.names))
    for name in REQUIRED:
        if name not in schema.names:
            raise UserError(
                f"{source} has no column {name!r}; its columns are {names}. Requests need "
                f"{' and '.join(map(repr, REQUIRED))} and may have "
                f"{', '.join(map(repr, COLUMNS[len(REQUIRED) :]))}"
            )
    for name in COLUMNS:
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
        else:
            valid = _is_list_of(found, _is_id)
            expected = "lists of item ids (text or whole numbers)"
        if not valid:
            raise UserError(f"{source}: column {name!r} is of type {found}; expected {expected}")


def table_of(
    histories: list[list[str]],
    *,
    ratings: list[list[float]] | None = None,
    candidates: list[list[str]] | None = None,
    exclude: list[list[str]] | None = None,
) -> pa.Table:
    """Make a table of requests from Python lists."""
    texts, numbers = pa.list_(pa.string()), pa.list_(pa.float32())
    columns: dict[str, Any] = {HISTORY: pa.array(histories, texts)}
    if ratings is not None:
        columns[RATINGS] = pa.array(ratings, numbers)
    if candidates is not None:
        columns[CANDIDATES] = pa.array(candidates, texts)
    if exclude is not None:
        columns[EXCLUDE] = pa.array(exclude, texts)
    return pa.table(columns)


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
    text = types.is_string(found) or types.is_large_string(found)
    return bool(text or types.is_integer(found))


def _is_number(found: pa.DataType) -> bool:
    return bool(pa.types.is_floating(found) or pa.types.is_integer(found))
