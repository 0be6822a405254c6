"""Ragged: lists of different lengths in one array (CSR)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert4rec_jax.data.ranges import in_parts, joined, within

_TEXT_BYTES = 1 << 28  # far below the 2 GiB of text that an Arrow array of strings can hold


@dataclass(frozen=True, eq=False)
class Ragged:
    """N lists: list i is `values[offsets[i]:offsets[i + 1]]`.

    Example: the lists 7 8, nothing, 9 are the values 7 8 9 with the offsets 0 2 2 3.

    Attributes:
      values: `[M]`.
      offsets: `[N + 1]` int64, from 0 to M.
    """

    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def from_lengths(
        cls, values: npt.NDArray[Any], lengths: npt.NDArray[np.integer[Any]]
    ) -> Ragged:
        """Lists of the given lengths."""
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    @classmethod
    def empty(cls, count: int) -> Ragged:
        """`count` empty lists of tokens."""
        return cls(np.zeros(0, np.int32), np.zeros(count + 1, np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """`[N]`: the number of values in each list."""
        return np.diff(self.offsets)

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """`[M]`: which list each value belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @cached_property
    def places(self) -> npt.NDArray[np.int64]:
        """`[M]`: the index of each value in its list, from 0."""
        return within(self.lengths)

    def where(self, keep: npt.NDArray[np.bool_]) -> Ragged:
        """The lists without the values for which `keep [M]` is false."""
        lengths = np.bincount(self.rows[keep], minlength=len(self))
        return Ragged.from_lengths(self.values[keep], lengths)

    def slices(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> Ragged:
        """The lists `values[starts[j] : starts[j] + lengths[j]]`."""
        return Ragged.from_lengths(self.values[joined(starts, lengths)], lengths)

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> Ragged:
        """The lists of the given rows, in their order."""
        return self.slices(self.offsets[rows], self.lengths[rows])

    def last(self, count: int) -> Ragged:
        """At most the last `count` values of each list."""
        lengths = np.minimum(self.lengths, count)
        return self.slices(self.offsets[1:] - lengths, lengths)

    def distinct(self) -> Ragged:
        """Each list's distinct values, ascending; values are int32 and not negative."""
        keys = np.sort(self.keys())
        keys = keys[np.diff(keys, prepend=-1) != 0]
        rows, values = keys >> 32, (keys & 0xFFFFFFFF).astype(np.int32)
        return Ragged.from_lengths(values, np.bincount(rows, minlength=len(self)))

    def keys(self) -> npt.NDArray[np.int64]:
        """`[M]`: one integer per pair of list and value, to find values of another `Ragged`."""
        return (self.rows << 32) | self.values

    def find(self, other: Ragged) -> npt.NDArray[np.int64]:
        """Index in `self.values` of each value of `other`, which must be in the list of its row."""
        keys = self.keys()
        by_key = np.argsort(keys)
        return by_key[np.searchsorted(keys[by_key], other.keys())]

    def beside(self, other: Ragged) -> Ragged:
        """Each list followed by the other's list of the same row."""
        rows = np.concatenate([self.rows, other.rows])
        order = np.argsort(rows, kind="stable")
        values = np.concatenate([self.values, other.values])[order]
        return Ragged.from_lengths(values, self.lengths + other.lengths)

    def padded(self, width: int) -> npt.NDArray[Any]:
        """`[N, width]`: the lists, padded with zeros; no list may be longer than `width`."""
        table = np.zeros((len(self), width), self.values.dtype)
        table[self.rows, self.places] = self.values
        return table

    def padded_to_longest(self) -> npt.NDArray[Any]:
        """`[N, width]`, where width is the length of the longest list, at least 1."""
        return self.padded(max(int(self.lengths.max(initial=0)), 1))


def text_ranges(lengths: npt.NDArray[np.int64], ids: pa.StringArray) -> Iterator[tuple[int, int]]:
    """Cut N lists of ids into ranges, each short enough for one Arrow array of text.

    Without any list there is one empty range.

    Args:
      lengths: `[N]` ids per list.
      ids: the ids that lists can hold.

    Yields:
      The first list of a range and the one after its last; a list that is too long for a range is
      one alone.
    """
    longest = pc.max(pc.binary_length(ids)).as_py() or 1
    for lists in in_parts(lengths, max(_TEXT_BYTES // longest, 1)):
        yield lists.start, lists.stop
    if not len(lengths):
        yield 0, 0
