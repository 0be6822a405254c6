"""Blocks: groups of columns of the content matrix, fitted once and then frozen.

Every block marks missing values in separate columns. Its rows are scaled so that their mean squared
norm over the fitted items is 1, so no block dominates the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bert4rec_jax.features.movie import Movie
from bert4rec_jax.features.vectors import Vectors
from bert4rec_jax.features.vocabulary import Vocabulary

Rows = npt.NDArray[np.float32]

LOGARITHMIC = ("budget", "popularity", "vote_count", "revenue")
MOST_KNOTS = 32
MOVIES_PER_KNOT = 20
VALUES_PER_KNOT = 8  # distinct values


@dataclass(frozen=True)
class NameBlock:
    """Multi-hot columns for the names in one field: genres, language, keywords, cast, ...

    Attributes:
      name: of the block and of the field.
      vocabulary: the columns of names; one more column for "missing" follows them.
      scale: the value of the ones.
    """

    name: str
    vocabulary: Vocabulary
    scale: float = 1.0

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.vocabulary.width + 1

    @property
    def missing(self) -> dict[str, int]:
        """The field -> the column that marks it as missing."""
        return {self.name: self.width - 1}

    def encode(self, movies: Sequence[Movie]) -> Rows:
        """`[n, width]`: the rows of n movies."""
        rows = np.zeros((len(movies), self.width), np.float32)
        for row, movie in zip(rows, movies):
            names = movie.names(self.name)
            row[self.vocabulary.columns(names) if names else self.width - 1] = self.scale
        return rows

    @classmethod
    def fit(
        cls, name: str, movies: Sequence[Movie], *, min_count: int, top: int, buckets: int
    ) -> NameBlock | None:
        """Fit the block on movies; None if none of them has such names."""
        lists = [movie.names(name) for movie in movies]
        if not any(lists):
            return None
        vocabulary = Vocabulary.fit(lists, min_count=min_count, top=top, buckets=buckets)
        block = cls(name, vocabulary)
        return replace(block, scale=_scale(block.encode(movies)))


@dataclass(frozen=True)
class Curve:
    """A number as weights on knots, so that a linear model can fit a piecewise linear curve to it.

    A number splits a weight of 1 between its two neighbouring knots, in proportion to how near they
    are; below the first or above the last knot, that knot has all the weight. The knots are
    quantiles of the numbers (of log(1 + x) for those in `LOGARITHMIC`), so they are dense where the
    numbers are.

    Attributes:
      name: of the field.
      knots: in increasing order.
    """

    name: str
    knots: tuple[float, ...]

    def apply(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """`[n, knots]`: the weights of n numbers; all 0 for NaN."""
        measured = _measure(self.name, values)
        rows = [np.interp(measured, self.knots, weight) for weight in np.eye(len(self.knots))]
        return np.where(np.isnan(measured)[:, None], 0, np.stack(rows, axis=1))

    @classmethod
    def fit(cls, name: str, values: npt.NDArray[np.float64]) -> Curve | None:
        """Fit the knots to some numbers; None if all are NaN."""
        measured = _measure(name, values[~np.isnan(values)])
        if not len(measured):
            return None
        most = min(len(measured) // MOVIES_PER_KNOT, len(np.unique(measured)) // VALUES_PER_KNOT)
        places = np.linspace(0, 1, int(np.clip(most, 2, MOST_KNOTS)))
        return cls(name, tuple(np.unique(np.quantile(measured, places)).tolist()))


@dataclass(frozen=True)
class NumberBlock:
    """Numeric fields: each has a column per knot of its curve, and one that marks it as missing."""

    name: str
    numbers: tuple[Curve, ...]
    scale: float = 1.0

    @property
    def width(self) -> int:
        """Number of columns."""
        return sum(len(number.knots) + 1 for number in self.numbers)

    @property
    def missing(self) -> dict[str, int]:
        """Field -> the column that marks it as missing."""
        last = np.cumsum([len(number.knots) + 1 for number in self.numbers]) - 1
        return {number.name: int(column) for number, column in zip(self.numbers, last)}

    def encode(self, movies: Sequence[Movie]) -> Rows:
        """`[n, width]`: the rows of n movies."""
        columns = []
        for number in self.numbers:
            values = _values(number.name, movies)
            columns += [number.apply(values), np.isnan(values)[:, None]]
        return (np.concatenate(columns, axis=1) * self.scale).astype(np.float32)

    @classmethod
    def fit(cls, name: str, fields: Iterable[str], movies: Sequence[Movie]) -> NumberBlock | None:
        """Fit the block to the fields that some of the movies have; None if there are none."""
        curves = (Curve.fit(field, _values(field, movies)) for field in fields)
        numbers = tuple(curve for curve in curves if curve)
        if not numbers:
            return None
        block = cls(name, numbers)
        return replace(block, scale=_scale(block.encode(movies)))


@dataclass(frozen=True)
class VectorBlock:
    """Embeddings minus their mean over the fitted items; one more column for "missing" follows.

    The mean is what all movies have in common. It does not help to tell them apart, and would take
    up a large part of the norm that the block is scaled to.
    """

    name: str
    mean: tuple[float, ...]
    scale: float = 1.0

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.mean) + 1

    @property
    def missing(self) -> dict[str, int]:
        """The block's name -> the column that marks an embedding as missing."""
        return {self.name: self.width - 1}

    def encode(self, vectors: Vectors) -> Rows:
        """`[n, width]`: the rows of n embeddings of the fitted width."""
        mean = np.asarray(self.mean, np.float32)
        rows = np.zeros((len(vectors.values), self.width), np.float32)
        rows[:, :-1] = np.where(vectors.present[:, None], vectors.values - mean, 0)
        rows[:, -1] = ~vectors.present
        return rows * np.float32(self.scale)

    @classmethod
    def fit(cls, name: str, vectors: Vectors) -> VectorBlock | None:
        """Fit the block to some embeddings; None if there are none."""
        if not vectors.present.any():
            return None
        mean = vectors.values[vectors.present].mean(axis=0, dtype=np.float64).astype(np.float32)
        block = cls(name, tuple(mean.tolist()))
        return replace(block, scale=_scale(block.encode(vectors)))


def _scale(rows: Rows) -> float:
    """The factor that scales the mean squared norm of rows to 1."""
    squared = float(np.square(rows, dtype=np.float64).sum()) / len(rows)
    return 1 / math.sqrt(squared) if squared else 1.0


def _values(field: str, movies: Sequence[Movie]) -> npt.NDArray[np.float64]:
    values = (movie.number(field) for movie in movies)
    return np.array([math.nan if value is None else value for value in values], np.float64)


def _measure(field: str, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.log1p(values) if field in LOGARITHMIC else values
