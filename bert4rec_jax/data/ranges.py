"""Ranges: many slices of one long array at once, without a loop over them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def within(sizes: Ints) -> Ints:
    """Concatenate `0 .. size - 1` for each of the sizes."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def joined(starts: Ints, sizes: Ints) -> Ints:
    """Concatenate `start .. start + size - 1` for each of the ranges.

    Example: the starts 7 and 2 with the sizes 3 and 2 are 7 8 9 2 3.
    """
    return np.arange(sizes.sum()) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)


def covered(starts: Ints, stops: Ints, count: int) -> npt.NDArray[np.bool_]:
    """`[count]`: whether each place is in a range `start:stop`; at most 127 may overlap there."""
    edges = np.zeros(count + 1, np.int8)  # may wrap around, and back
    np.add.at(edges, starts, 1)
    np.subtract.at(edges, stops, 1)
    return np.cumsum(edges[:-1], dtype=np.int8) > 0


def in_parts(sizes: Ints, most: int) -> Iterator[slice]:
    """Cut a list of ranges into slices whose sizes add up to at most `most`.

    A range that is larger by itself has a slice of its own.
    """
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, "right")))
        yield slice(start, stop)
        start = stop
