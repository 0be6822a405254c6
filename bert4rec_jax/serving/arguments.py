"""Arguments: checks what callers in Python pass as histories, ratings, times and lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from typing import Any

import numpy as np

from bert4rec_jax.checks import require_a
from bert4rec_jax.data.delimited import is_utf8, shorten
from bert4rec_jax.errors import UserError
from bert4rec_jax.serving.times import Times, whole_seconds

Ids = Sequence[str | int]
Ratings = Sequence[float | None]  # None or NaN where there is no rating
Facts = Mapping[str, Any]  # user features: name -> value; one that is not there is unknown
Place = Callable[[str, int], str]  # what to call an argument of request `row` in messages


def of_many(name: str, row: int) -> str:
    """The place of an argument of which the caller passed one for each request."""
    return f"{name}[{row}]"


def of_one(name: str, row: int) -> str:
    """The place of an argument of a caller that passed a single request."""
    return {"histories": "history", "users": "user"}.get(name, name)


def id_lists(
    name: str, lists: Sequence[Ids], place: Place, *, ordered: bool = True
) -> list[list[str]]:
    """Lists of ids as text; raises `UserError` if they are not valid."""
    require_list(name, lists, "one list of item ids per request")
    return [id_list(place(name, row), ids, ordered=ordered) for row, ids in enumerate(lists)]


def id_list(name: str, ids: Collection[str | int], *, ordered: bool = True) -> list[str]:
    """A list of ids as text; raises `UserError` if they are not valid."""
    require_list(name, ids, "a list of item ids", ordered=ordered)
    for item in ids:
        if isinstance(item, bool) or not isinstance(item, str | int | np.integer):
            raise UserError(
                f"{name} holds {item!r} of type {type(item).__name__}; item ids are texts, as in "
                "the catalog, or whole numbers"
            )
        if isinstance(item, str) and not item.isascii() and not is_utf8(item):
            raise UserError(f"{name} holds {item!r}, which is not valid Unicode text")
    return [str(item) for item in ids]


def require_one_each(name: str, given: Sized, histories: Sized) -> None:
    """Refuse another number of lists than of histories; raises `UserError`."""
    if len(given) != len(histories):
        raise UserError(f"{len(given)} {name} for {len(histories)} histories; give one list each")


def require_list(name: str, given: Any, expected: str, *, ordered: bool = True) -> None:
    """Refuse what is no list of values, such as text or a table, or a set if order counts.

    Raises:
      UserError: it is none.
    """
    listed = isinstance(given, Sized) and isinstance(given, Iterable)
    if not listed or isinstance(given, str | bytes | Mapping) or getattr(given, "ndim", 1) == 0:
        raise UserError(f"{name} is {shorten(given)}; expected {expected}")
    if hasattr(given, "columns"):
        raise UserError(f"{name} is a table, a list of its columns' names; expected {expected}")
    if ordered and isinstance(given, set | frozenset):
        raise UserError(f"{name} is {shorten(given)}, a set without order; expected {expected}")


def time_lists(timestamps: Sequence[Times], place: Place) -> list[list[int | None]]:
    """Times as numbers; raises `UserError` if they are not valid."""
    require_list("timestamps", timestamps, "one list of times per history")
    lists = []
    for row, given in enumerate(timestamps):
        require_list(place("timestamps", row), given, "a list of times")
        lists.append(whole_seconds(given, place("timestamps", row)))
    return lists


def rating_lists(ratings: Sequence[Ratings], place: Place) -> list[list[float]]:
    """Ratings as numbers, NaN for none; raises `UserError` if they are not valid."""
    require_list("ratings", ratings, "one list of ratings per history")
    lists = []
    given: Any
    for row, given in enumerate(ratings):
        try:
            if isinstance(given, str | bytes | Mapping | set | frozenset):
                raise TypeError  # signs or keys may be numbers, and a set has no order
            lists.append([math.nan if value is None else float(value) for value in given])
        except (TypeError, ValueError, OverflowError):
            raise UserError(
                f"{place('ratings', row)} is {shorten(given)}; expected a list of numbers, None "
                "or NaN where an item is not rated"
            ) from None
    return lists


def require_facts(facts: Any, name: str) -> None:
    """Refuse user features that are not given by name; raises `UserError`."""
    if not isinstance(facts, Mapping) or not all(isinstance(key, str) for key in facts):
        raise UserError(f"{name} is {shorten(facts)}; expected features by name, as {{'age': 35}}")


def require_kind_of_lists(k: int | None, keep_seen: bool | None) -> None:
    """Refuse a length of lists, or whether they may have items of the history, of other types.

    Raises:
      UserError: one is not valid.
    """
    if k is not None:
        require_positive(k)
    require_a(bool | np.bool_ | None, keep_seen, "keep_seen", "True, False or None")


def require_positive(k: int) -> None:
    """Refuse a length of lists that is no whole number from 1 on; raises `UserError`."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise UserError(f"k is {k!r}; expected a whole number, at least 1")
