"""Plan: a pure function of (seed, epoch) that says which histories each step trains on.

The step number alone determines the position in the data. So there is no iterator state to save, a
resumed run sees exactly the batches it would have seen, and all hosts slice the same rows.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.batch import Spans
from bert4rec_jax.data.ranges import joined, within
from bert4rec_jax.errors import UserError

Window = Literal["recent", "tiles", "random-prefix"]
_SHORTEST = 2  # interactions of a training history: one item to predict, one as context


@dataclass(frozen=True)
class EpochPlan:
    """All rows of one epoch, in the order they are trained on.

    Attributes:
      spans: every history, sorted by row; rows are numbered from 0 within the epoch.
      first_span: `[R + 1]`: row r holds the spans `first_span[r] : first_span[r + 1]`.
    """

    spans: Spans
    first_span: npt.NDArray[np.int64]

    @property
    def num_examples(self) -> int:
        """Number of histories in the epoch."""
        return len(self.spans.starts)

    @property
    def num_rows(self) -> int:
        """Number of rows R in the epoch."""
        return len(self.first_span) - 1

    def rows(self, start: int, stop: int) -> Spans:
        """The spans of rows `start : stop`, renumbered from 0; rows beyond the epoch have none."""
        start, stop = min(start, self.num_rows), min(stop, self.num_rows)
        part = Spans(*(x[self.first_span[start] : self.first_span[stop]] for x in self.spans))
        return part._replace(rows=part.rows - start)


@dataclass(frozen=True, eq=False)
class Plan:
    """Training histories, and how they are arranged in the rows of each step.

    Attributes:
      starts, stops: `[U]` int64: each user's training rows in the store are `starts : stops`.
      max_length: columns L of a row.
      batch_size: rows B of a step, over all hosts.
      window: see `DataConfig.window`.
      pack: whether a row may hold several histories.
      max_segments: maximum number of histories in a row when packing.
      seed: seed of the permutation and the random windows.
    """

    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    max_length: int
    batch_size: int
    window: Window
    pack: bool
    max_segments: int
    seed: int

    def __post_init__(self) -> None:
        if not (self.stops - self.starts >= _SHORTEST).any():
            raise UserError(
                f"no training history has {_SHORTEST} interactions; there is nothing to learn from"
            )

    @cached_property
    def steps_per_epoch(self) -> int:
        """Number of steps in an epoch, the same for every epoch.

        With packed random prefixes, the number of rows varies a little between epochs. The count is
        that of epoch 0: a shorter epoch ends with empty rows, a longer one leaves its last rows
        out.
        """
        return -(-self.epoch(0).num_rows // self.batch_size)

    def epoch(self, epoch: int) -> EpochPlan:
        """The rows of an epoch; equal plans and epochs give equal rows, on every host."""
        generator = np.random.default_rng([self.seed, epoch])
        starts, stops = self._examples(generator)
        order = generator.permutation(len(starts))
        lengths = (stops - starts)[order]
        if self.pack:
            in_rows, first_span = fill_rows(
                lengths, capacity=self.max_length, most=self.max_segments
            )
            shuffled = generator.permutation(len(first_span) - 1)
            sizes = np.diff(first_span)[shuffled]
            pieces = joined(first_span[:-1][shuffled], sizes)
            order, lengths = order[in_rows[pieces]], lengths[in_rows[pieces]]
        else:
            sizes = np.ones(len(order), np.int64)
        first_span = np.concatenate([[0], np.cumsum(sizes)])
        before = np.cumsum(lengths) - lengths
        spans = Spans(
            starts=starts[order],
            lengths=lengths,
            rows=np.repeat(np.arange(len(sizes)), sizes),
            columns=before - np.repeat(before[first_span[:-1]], sizes),
            segments=within(sizes) + 1,
            examples=order.astype(np.int64),
        )
        return EpochPlan(spans, first_span)

    def reached(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ranges (starts, stops) of all the store's rows that at least one epoch can train on."""
        if self.window == "random-prefix":  # a prefix of any length may be drawn
            long_enough = self.stops - self.starts >= _SHORTEST
            return self.starts[long_enough], self.stops[long_enough]
        return self._examples(np.random.default_rng(0))

    def step(self, epoch_plan: EpochPlan, step: int, *, host: int = 0, hosts: int = 1) -> Spans:
        """The spans of one host's share of a step; `epoch_plan` is the plan of its epoch."""
        share = self.batch_size // hosts
        start = (step % self.steps_per_epoch) * self.batch_size + host * share
        return epoch_plan.rows(start, start + share)

    def _examples(
        self, generator: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Starts and stops of all training windows, in the order of the store."""
        long_enough = self.stops - self.starts >= _SHORTEST
        starts, stops = self.starts[long_enough], self.stops[long_enough]
        if self.window == "tiles":
            return _tiles(starts, stops, self.max_length)
        if self.window == "random-prefix":
            stops = generator.integers(starts + _SHORTEST, stops, endpoint=True)
        return np.maximum(starts, stops - self.max_length), stops


def fill_rows(
    lengths: npt.NDArray[np.int64], *, capacity: int, most: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pack pieces into few rows: best fit, the longest pieces first.

    It works on the number of pieces of each length (Krell et al. 2021), so finding the rows takes
    no longer for more pieces. Pieces of equal length are placed in input order. Example: lengths 3,
    2, 4, 1 at capacity 5 make the rows (3, 2) and (4, 1).

    Args:
      lengths: `[S]`, each in [1, capacity].
      capacity: length of a row.
      most: maximum number of pieces in a row.

    Returns:
      `order [S]`, the indices of the pieces row by row, and `first [R + 1]`: row r holds the pieces
      `order[first[r] : first[r + 1]]`.
    """
    patterns = _patterns(np.bincount(lengths, minlength=capacity + 1), capacity, most)
    counts = np.array([count for _, count in patterns], np.int64)
    places = np.concatenate([np.tile(pieces, count) for pieces, count in patterns])
    sizes = np.repeat([len(pieces) for pieces, _ in patterns], counts)
    order = np.empty(len(lengths), np.int64)
    order[np.argsort(places, kind="stable")] = np.argsort(lengths, kind="stable")
    return order, np.concatenate([[0], np.cumsum(sizes)])


def _patterns(
    pieces: npt.NDArray[np.int64], capacity: int, most: int
) -> list[tuple[tuple[int, ...], int]]:
    """Pack `pieces[n]` pieces of length n: (lengths in a row, number of such rows) pairs."""
    by_room: dict[int, list[tuple[tuple[int, ...], int]]] = defaultdict(list)

    def keep(row: tuple[int, ...], count: int) -> None:
        room = capacity - sum(row) if len(row) < most else 0
        if count:
            by_room[room].append((row, count))

    for length in range(capacity, 0, -1):
        left = int(pieces[length])
        while left:
            room = min((r for r, rows in by_room.items() if r >= length and rows), default=None)
            if room is None:
                fit = min(most, capacity // length)
                keep((length,) * fit, left // fit)
                keep((length,) * (left % fit), int(left % fit > 0))
                break
            row, count = by_room[room].pop()
            used = min(left, count)
            keep((*row, length), used)
            keep(row, count - used)
            left -= used
    return [found for rows in by_room.values() for found in rows]


def _tiles(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], length: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Windows of `length` counted from the end of each range; the oldest one holds the remainder.

    Windows that are too short to train on are left out.
    """
    counts = -(-(stops - starts) // length)
    back = within(counts)
    tile_stops = np.repeat(stops, counts) - back * length
    tile_starts = np.maximum(np.repeat(starts, counts), tile_stops - length)
    useful = tile_stops - tile_starts >= _SHORTEST
    return tile_starts[useful], tile_stops[useful]
