"""Buckets: the few sizes that arrays are padded to, because JAX compiles once per size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

LONGEST_CANDIDATES = 1024  # score longer lists in pieces: they gather vectors [B, C, D]
_SMALLEST = 16


def history_widths(longest: int) -> list[int]:
    """Columns for histories of up to `longest` items: 15, 31, 63, ... and `longest` itself.

    One less than a power of two, because the model adds a column for MASK.
    """
    widths = []
    width = _SMALLEST - 1
    while width < longest:
        widths.append(width)
        width = 2 * width + 1
    return [*widths, longest]


def list_widths(longest: int) -> list[int]:
    """Columns for lists of up to `longest` items: 16, 64, 256, ..."""
    widths = [_SMALLEST]
    while widths[-1] < longest:
        widths.append(4 * widths[-1])
    return widths


def batch_size(rows: int, largest: int) -> int:
    """Rows of a batch: 1, 8, 64, ... up to `largest`."""
    size = 1
    while size < rows:
        size *= 8
    return min(size, largest)


def smallest(lengths: npt.NDArray[np.int64], widths: list[int]) -> npt.NDArray[np.int64]:
    """For each length, the smallest width that is not below it; `widths` ascend."""
    sizes = np.array(widths, np.int64)
    return sizes[np.searchsorted(sizes, lengths)]


def blocks(
    widths: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], size: int
) -> Iterator[tuple[npt.NDArray[np.intp], int, int]]:
    """Group rows by their pair of widths; yields at most `size` rows and their two widths."""
    order = np.lexsort(widths)
    pairs = np.stack(widths, axis=1)[order]
    changes = np.flatnonzero((pairs[1:] != pairs[:-1]).any(axis=1)) + 1
    for group in np.split(order, changes) if len(order) else []:
        first, second = (int(width[group[0]]) for width in widths)
        for start in range(0, len(group), size):
            yield group[start : start + size], first, second
