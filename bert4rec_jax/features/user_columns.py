"""User columns: encoders of one user feature each, fitted once and then frozen.

Values are plain Python ones, or numbers of NumPy; None and empty text mean "missing". Missing
values are marked in a separate column, so they are never taken for a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.delimited import shorten
from bert4rec_jax.errors import UserError
from bert4rec_jax.features.blocks import Rows
from bert4rec_jax.features.vocabulary import Vocabulary

Where = Callable[[int], str]  # maps the index of a value to its place, for messages

_FEWEST = 5  # users that must have a name for it to have a column of its own
_MOST = 256  # maximum number of names with a column of their own
_TRUTHS = ("true", "false")
CLIP = 4.0  # standard deviations


@dataclass(frozen=True)
class NameColumn:
    """A category or a list of them: a column per name, one for all other names, one for missing.

    With the names (F, M), `F` becomes 1 0 0 0, `X` 0 0 1 0, and a missing value 0 0 0 1. An empty
    list is not a missing value: all its columns are 0.

    Attributes:
      name: of the feature.
      vocabulary: the names, with one bucket.
      lists: whether a user may have several names.
    """

    name: str
    vocabulary: Vocabulary
    lists: bool

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.vocabulary.width + 1

    def encode(self, values: Sequence[Any], where: Where) -> Rows:
        """`[n, width]`: the rows of n values.

        Raises:
          UserError: a value is not a name.
        """
        rows = np.zeros((len(values), self.width), np.float32)
        known: dict[tuple[str, ...] | None, list[int]] = {None: [self.width - 1]}
        places: list[int] = []
        columns: list[int] = []
        for row, names in enumerate(_all_names(self.name, values, self.lists, where)):
            if names not in known:
                known[names] = self.vocabulary.columns(names or ())
            columns += known[names]
            places += [row] * len(known[names])
        rows[places, columns] = 1
        return rows


@dataclass(frozen=True)
class UserNumber:
    """A number as a z-score, clipped to ±`CLIP`, and whether it is missing.

    With mean 30 and deviation 10, 45 becomes 1.5 0, and a missing value 0 1.

    Attributes:
      name: of the feature.
      mean, deviation: mean and standard deviation over the fitted users.
    """

    name: str
    mean: float
    deviation: float

    @property
    def width(self) -> int:
        """Number of columns."""
        return 2

    def encode(self, values: Sequence[Any], where: Where) -> Rows:
        """`[n, 2]`: the rows of n values.

        Raises:
          UserError: a value is not a finite number.
        """
        numbers = _all_numbers(self.name, values, where)
        standard = np.clip((numbers - self.mean) / self.deviation, -CLIP, CLIP)
        missing = np.isnan(numbers)
        return np.stack([np.where(missing, 0, standard), missing], axis=1).astype(np.float32)


UserColumn = NameColumn | UserNumber


def fit_column(
    name: str, values: Sequence[Any], fitted: npt.NDArray[np.bool_], where: Where
) -> UserColumn:
    """Fit the column of a feature; the first value that is not missing determines its kind.

    Args:
      name: of the feature.
      values: of n users.
      fitted: `[n]`: mask of the users that vocabularies, means and deviations are fitted on.
      where: the place of each value.

    Raises:
      UserError: a value is of a different kind than the first, or of one that cannot be a column.
    """
    first = next((value for value in values if not _is_missing(value)), "")
    if not isinstance(first, str | int | float | list | tuple):
        row = next(row for row, value in enumerate(values) if value is first)
        raise UserError(
            f"{where(row)}: the {name} {shorten(first)} is of type {type(first).__name__}; "
            "expected text, true or false, a number or a list of texts: convert or remove the "
            "column"
        )
    if isinstance(first, int | float) and not isinstance(first, bool):
        numbers = _all_numbers(name, values, where)[fitted]
        numbers = numbers[~np.isnan(numbers)]
        if not len(numbers):
            return UserNumber(name, 0.0, 1.0)
        if numbers.min() == numbers.max():  # rounded, their deviation may be a little above 0
            return UserNumber(name, float(numbers[0]), 1.0)
        return UserNumber(name, float(numbers.mean()), float(numbers.std()) or 1.0)
    lists = isinstance(first, list | tuple)
    names = list(_all_names(name, values, lists, where))
    seen = [found or () for found, counts in zip(names, fitted) if counts]
    return NameColumn(name, Vocabulary.fit(seen, min_count=_FEWEST, top=_MOST, buckets=1), lists)


def _all_names(
    column: str, values: Sequence[Any], lists: bool, where: Where
) -> Iterable[tuple[str, ...] | None]:
    """The names of each value, None where it is missing."""
    expected = "a list of texts" if lists else "one text, or true or false"
    for row, value in enumerate(values):
        if _is_missing(value):
            yield None
            continue
        given = value if isinstance(value, list | tuple) else [value]
        if len(given) != 1 and not lists:
            raise _invalid(where(row), column, value, expected)
        names = [_name(entry) for entry in given if not _is_missing(entry)]
        if None in names:
            raise _invalid(where(row), column, value, expected)
        yield tuple(name for name in names if name is not None)


def _name(value: object) -> str | None:
    """A category as text; None if the value cannot be one. True, "True" and "true" are the same."""
    if isinstance(value, np.bool_ | np.integer):
        value = value.item()
    if isinstance(value, bool | int):
        value = str(value)
    if not isinstance(value, str):
        return None
    text = value.strip()
    return text.lower() if text.lower() in _TRUTHS else text


def _all_numbers(column: str, values: Sequence[Any], where: Where) -> npt.NDArray[np.float64]:
    """`[n]`: finite numbers, NaN where a value is missing."""
    numbers = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if not _is_missing(value):
            number = to_number(value)
            if number is None or not math.isfinite(number):
                raise _invalid(where(row), column, value, "a finite number")
            numbers[row] = number
    return numbers


def to_number(value: object) -> float | None:
    """The number that a value or a text is; None for anything else."""
    if isinstance(value, np.integer | np.floating):
        value = value.item()
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return None
    if isinstance(value, str) and "_" in value:  # Python reads 25_34 as 2534
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _invalid(where: str, column: str, value: object, expected: str) -> UserError:
    return UserError(
        f"{where}: the {column} {shorten(value)} is not valid; expected {expected}: fix the "
        "value, or leave it out (null, or nothing in CSV) if it is not known"
    )
