"""History: the input of every encoder, a batch of rows of histories."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = Any  # a JAX array, or a NumPy array that is not on the devices yet
GAPS = 16  # buckets of the time gap between two items; the last one starts at about 2 years


class History(NamedTuple):
    """B rows of L columns, right padded; a row may hold several histories (segments).

    Attributes:
      tokens: `[B, L]` int, MASK at masked positions.
      thumbs: `[B, L]` int in [0, 4): none, down, up, two up; none at MASK.
      positions: `[B, L]` int in [0, max_length); the last one of a history is `max_length - 1`.
      segments: `[B, L]` int, number of the history within its row, 0 on padding; a position attends
        only to its own segment.
      causal: `[B, L]` bool, true where a position attends only to itself and earlier positions.
      days: `[B, L]` float32, time in days of each interaction, or of the request at MASK; None for
        models that do not read times.
      since: `[B, L]` int32 seconds since the previous item of the same history, 0 for the first
        item; given together with `days`.
      users: `[B, L or 1, G]` float32 user features, per column or once for a row with one user;
        None for models that do not read them.
    """

    tokens: Array
    thumbs: Array
    positions: Array
    segments: Array
    causal: Array
    days: Array | None = None
    since: Array | None = None
    users: Array | None = None


def visible(history: History) -> jax.Array:
    """`[B, L, L]` bool attention mask: which columns (last axis) each column may attend to."""
    segments = history.segments
    same = (segments[:, :, None] == segments[:, None, :]) & (segments[:, None, :] != 0)
    columns = jnp.arange(segments.shape[1])
    allowed: jax.Array = same & (~history.causal[:, :, None] | (columns <= columns[:, None]))
    return allowed


def moments(history: History) -> tuple[jax.Array, jax.Array]:
    """The time of the prediction at each column, and its gap to the previous item, as a bucket.

    A causal column predicts the item of the next column, so it gets the time and gap of that item.

    Returns:
      `[B, L]` float32 days; and `[B, L]` int32 buckets in [0, GAPS): 0 for a gap of zero, then gaps
      of up to 1, 3, 7, 15, ... hours.
    """
    assert history.days is not None and history.since is not None, "this model reads times"
    together = history.segments[:, 1:] == history.segments[:, :-1]

    def of_next(values: Array) -> jax.Array:
        return jnp.pad(jnp.asarray(values)[:, 1:], ((0, 0), (0, 1)))

    next_one = history.causal & jnp.pad(together, ((0, 0), (0, 1)))
    asked = jnp.where(next_one, of_next(history.days), history.days)
    since = jnp.where(history.causal, of_next(history.since), history.since)
    doublings = jnp.ceil(jnp.log2(1 + jnp.maximum(since, 0) / 3600))
    return asked, jnp.minimum(doublings, GAPS - 1).astype(jnp.int32)
