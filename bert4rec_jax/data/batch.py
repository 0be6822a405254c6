"""Batch: histories as right-padded rows, the form in which the models read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.catalog import MASK, PAD
from bert4rec_jax.data.ranges import joined, within

SECONDS_PER_DAY = 86_400


class Batch(NamedTuple):
    """B rows of L columns, right padded; a row holds one history, or several when packed.

    The items of a history of n items have the positions `L - n .. L - 1`, in whichever columns of
    the row they lie: the newest item always has position `L - 1`. Example: the items 7, 8, 9 in a
    row of five are

        tokens     7 8 9 0 0
        positions  2 3 4 0 0
        segments   1 1 1 0 0

    Attributes:
      tokens: `[B, L]` int32, 0 on padding.
      thumbs: `[B, L]` int8, see `data.thumbs`; 0 on padding.
      positions: `[B, L]` int32 in [0, L), 0 on padding.
      segments: `[B, L]` int32: number of the history within its row (1, 2, ...), 0 on padding.
      examples: `[B, L]` uint32: number of the history within its epoch. Masks derive from it, so
        neither packing nor the number of hosts changes them.
      days: `[B, L]` float32: time of the interaction in days since 1970, 0 on padding; exact to
        some minutes, as float32 is.
      since: `[B, L]` int32: seconds since the previous item of the same history; 0 for the first
        item and on padding.
      users: `[B, L]` int32: number of the user, from 1, and 0 on padding; None for models that do
        not read it.
    """

    tokens: npt.NDArray[np.int32]
    thumbs: npt.NDArray[np.int8]
    positions: npt.NDArray[np.int32]
    segments: npt.NDArray[np.int32]
    examples: npt.NDArray[np.uint32]
    days: npt.NDArray[np.float32]
    since: npt.NDArray[np.int32]
    users: npt.NDArray[np.int32] | None = None


class Spans(NamedTuple):
    """Slices of a store's arrays, and where each of them goes in a batch.

    Attributes:
      starts, lengths: `[S]` int64: a span is the store's rows `starts : starts + lengths`.
      rows, columns: `[S]` int64: row of the batch, and the first column in it.
      segments: `[S]` int64: number of the history within its row, from 1.
      examples: `[S]` int64: number of the history within its epoch.
    """

    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64]
    examples: npt.NDArray[np.int64]


def gather(
    spans: Spans,
    tokens: npt.NDArray[np.int32],
    thumbs: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int8]],
    timestamps: npt.NDArray[np.int64],
    *,
    num_rows: int,
    max_length: int,
    users: npt.NDArray[np.int64] | None = None,
) -> Batch:
    """Copy spans of a store's arrays into a right-padded batch.

    Args:
      spans: which rows of the store to copy, and where to.
      tokens: `[N]` the store's tokens.
      thumbs: maps row indices of the store to thumbs.
      timestamps: `[N]` the store's timestamps.
      num_rows: rows B of the batch; rows without a span are all padding.
      max_length: columns L of a row.
      users: `[S]` number of each span's user, from 1; None leaves `Batch.users` None.
    """
    source = joined(spans.starts, spans.lengths)
    target = joined(spans.rows * max_length + spans.columns, spans.lengths)
    positions = joined(max_length - spans.lengths, spans.lengths)
    seconds = timestamps[source]

    def place(values: npt.NDArray[Any], dtype: type) -> npt.NDArray[Any]:
        flat: npt.NDArray[Any] = np.zeros(num_rows * max_length, dtype)
        flat[target] = values
        return flat.reshape(num_rows, max_length)

    return Batch(
        tokens=place(tokens[source], np.int32),
        thumbs=place(thumbs(source), np.int8),
        positions=place(positions, np.int32),
        segments=place(np.repeat(spans.segments, spans.lengths), np.int32),
        examples=place(np.repeat(spans.examples, spans.lengths), np.uint32),
        days=place(seconds / SECONDS_PER_DAY, np.float32),
        since=place(_since(seconds, within(spans.lengths) > 0), np.int32),
        users=None if users is None else place(np.repeat(users, spans.lengths), np.int32),
    )


def inference_rows(
    source: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    tokens: npt.NDArray[np.int32],
    thumbs: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int8]],
    *,
    max_length: int,
    timestamps: npt.NDArray[np.int64] | None = None,
    moments: npt.NDArray[np.int64] | None = None,
) -> tuple[Batch, npt.NDArray[np.int32]]:
    """Histories as model input for inference: the items, then MASK in place of the next one.

    Example, L = 5: the history 7, 8 is `7 8 M 0 0` at the positions `2 3 4 0 0`.

    Args:
      source: `[B, W]` rows of the store: a history is the first `lengths` of its row, oldest
        first. W is enough for the longest history and its MASK.
      lengths: `[B]`, at most L - 1.
      tokens: `[N]` the store's tokens.
      thumbs: maps row indices of the store to thumbs.
      max_length: positions L of the model.
      timestamps: `[N]` the store's timestamps; None for models that do not read times.
      moments: `[B]` time at each MASK in seconds since 1970; given together with `timestamps`.

    Returns:
      The batch (its examples are 0) and the column of each MASK, `[B, 1]`.
    """
    columns = np.arange(source.shape[1])
    is_history = columns < lengths[:, None]
    used = columns <= lengths[:, None]
    source = np.where(is_history, source, 0)
    rows = np.where(is_history, tokens[source], np.where(used, MASK, PAD))
    positions = np.where(used, max_length - 1 - lengths[:, None] + columns, 0)
    seconds = np.zeros(rows.shape, np.int64)
    if timestamps is not None and moments is not None:
        seconds = np.where(is_history, timestamps[source], moments[:, None])
    batch = Batch(
        tokens=rows.astype(np.int32),
        thumbs=np.where(is_history, thumbs(source), 0).astype(np.int8),
        positions=positions.astype(np.int32),
        segments=used.astype(np.int32),
        examples=np.zeros(rows.shape, np.uint32),
        days=np.where(used, seconds / SECONDS_PER_DAY, 0).astype(np.float32),
        since=_since(seconds, used & (columns > 0)),
    )
    return batch, lengths[:, None].astype(np.int32)


def _since(seconds: npt.NDArray[np.int64], follows: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Seconds since the previous value (last axis) where `follows`, else 0; capped to int32."""
    steps = np.diff(seconds, axis=-1, prepend=seconds[..., :1])
    return np.where(follows, np.minimum(steps, 2**31 - 1), 0).astype(np.int32)
