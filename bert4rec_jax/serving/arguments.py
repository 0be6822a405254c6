"""Arguments: checks what callers in Python pass as histories, ratings, times and lengths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any

import numpy as np

from bert4rec_jax.data.delimited import is_utf8, shorten
from bert4rec_jax.errors import UserError
from bert4rec_jax.serving.times import Times, whole_seconds

Ids = Sequence[str | int]
Ratings = Sequence[float | None]  # None or NaN where there is no rating


def id_lists(name: str, lists: Sequence[Ids]) -> list[list[str]]:
    """Lists of ids as text; raises `UserError` if they are not valid."""
    require_list(name, lists, "one list of item ids per request")
    return [id_list(f"{name}[{row}]", ids) for row, ids in enumerate(lists)]


def id_list(name: str, ids: Ids) -> list[str]:
    """A list of ids as text; raises `UserError` if they are not valid."""
    require_list(name, ids, "a list of item ids")
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


def require_list(name: str, given: Any, expected: str) -> None:
    """Refuse what is no list of values, such as text; raises `UserError`."""
    listed = isinstance(given, Sized) and isinstance(given, Iterable)
    if not listed or isinstance(given, str | bytes | Mapping):
        raise UserError(f"{name} is {shorten(given)}; expected {expected}")


def time_lists(timestamps: Sequence[Times]) -> list[list[int | None]]:
    """Times as numbers; raises `UserError` if they are not valid."""
    require_list("timestamps", timestamps, "one list of times per history")
    lists = []
    for row, given in enumerate(timestamps):
        require_list(f"timestamps[{row}]", given, "a list of times")
        lists.append(whole_seconds(given, f"timestamps[{row}]"))
    return lists


def rating_lists(ratings: Sequence[Ratings]) -> list[list[float]]:
    """Ratings as numbers, NaN for none; raises `UserError` if they are not valid."""
    require_list("ratings", ratings, "one list of ratings per history")
    lists = []
    for row, given in enumerate(ratings):
        try:
            lists.append([math.nan if value is None else float(value) for value in given])
        except (TypeError, ValueError):
            raise UserError(
                f"ratings[{row}] is {shorten(given)}; expected a list of numbers, None or NaN "
                "where an item is not rated"
            ) from None
    return lists


def require_positive(k: int) -> None:
    """Refuse a length of lists that is no whole number from 1 on; raises `UserError`."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise UserError(f"k is {k!r}; expected a whole number, at least 1")
