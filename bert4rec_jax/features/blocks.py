"""Blocks: columns of the content matrix that belong together, fitted once and then frozen.

Every block marks what is missing in columns of its own, and its rows are scaled so that the mean of
their squared norms over the fitted items is 1: no block drowns another.
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
Mask = npt.NDArray[np.bool_]

LOGARITHMIC = ("budget", "popularity", "vote_count", "revenue")
MOST_KNOTS = 32
MOVIES_PER_KNOT = 20
VALUES_PER_KNOT = 8  # different ones


@dataclass(frozen=True)
class NameBlock:
    """Names of one fact about movies, multi-hot: genres, language, keywords, cast, ...

    Attributes:
      name: of the block and of the fact.
      vocabulary: the columns of names; one for "missing" follows them.
      scale: what the ones are.
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
        """What is covered -> the column that says it is missing."""
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
        """The block of some movies; None if no one has such names."""
        lists = [movie.names(name) for movie in movies]
        if not any(lists):
            return None
        vocabulary = Vocabulary.fit(lists, min_count=min_count, top=top, buckets=buckets)
        block = cls(name, vocabulary)
        return replace(block, scale=_scale(block.encode(movies)))


@dataclass(frozen=True)
class Curve:
    """A number by how near it is to some knots, so that a linear model can follow any curve.

    The two knots around a number share a weight of 1; beyond the last one it has all of it. The
    knots are quantiles, of log(1 + x) for budgets and the like: dense where the numbers are.

    Attributes:
      name: of the fact.
      knots: rising.
    """

    name: str
    knots: tuple[float, ...]

    def apply(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """`[n]` numbers to `[n, knots]` weights; all 0 where NaN."""
        measured = _measure(self.name, values)
        rows = [np.interp(measured, self.knots, weight) for weight in np.eye(len(self.knots))]
        return np.where(np.isnan(measured)[:, None], 0, np.stack(rows, axis=1))

    @classmethod
    def fit(cls, name: str, values: npt.NDArray[np.float64]) -> Curve | None:
        """The curve of some numbers; None where all are NaN."""
        measured = _measure(name, values[~np.isnan(values)])
        if not len(measured):
            return None
        most = min(len(measured) // MOVIES_PER_KNOT, len(np.unique(measured)) // VALUES_PER_KNOT)
        places = np.linspace(0, 1, int(np.clip(most, 2, MOST_KNOTS)))
        return cls(name, tuple(np.unique(np.quantile(measured, places)).tolist()))


@dataclass(frozen=True)
class NumberBlock:
    """Numbers, each in a column per knot of its curve, and one that says it is missing."""

    name: str
    numbers: tuple[Curve, ...]
    scale: float = 1.0

    @property
    def width(self) -> int:
        """Number of columns."""
        return sum(len(number.knots) + 1 for number in self.numbers)

    @property
    def missing(self) -> dict[str, int]:
        """What is covered -> the column that says it is missing."""
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
        """The block of those numbers that some of the movies have; None if there are none."""
        curves = (Curve.fit(field, _values(field, movies)) for field in fields)
        numbers = tuple(curve for curve in curves if curve)
        if not numbers:
            return None
        block = cls(name, numbers)
        return replace(block, scale=_scale(block.encode(movies)))


@dataclass(frozen=True)
class VectorBlock:
    """Embeddings, less their mean over the fitted items; one column for "missing" follows.

    The mean is what all movies have in common. It tells none apart, and would take a large part of
    the norm that the block is given.
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
        """What is covered -> the column that says it is missing."""
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
        """The block of some embeddings; None if there are none."""
        if not vectors.present.any():
            return None
        mean = vectors.values[vectors.present].mean(axis=0, dtype=np.float64).astype(np.float32)
        block = cls(name, tuple(mean.tolist()))
        return replace(block, scale=_scale(block.encode(vectors)))


def _scale(rows: Rows) -> float:
    """The factor that makes the mean squared norm of rows 1."""
    squared = float(np.square(rows, dtype=np.float64).sum()) / len(rows)
    return 1 / math.sqrt(squared) if squared else 1.0


def _values(field: str, movies: Sequence[Movie]) -> npt.NDArray[np.float64]:
    values = (movie.number(field) for movie in movies)
    return np.array([math.nan if value is None else value for value in values], np.float64)


def _measure(field: str, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.log1p(values) if field in LOGARITHMIC else values
