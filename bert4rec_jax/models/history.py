"""History: rows of histories as every encoder reads them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = Any  # of JAX, or of NumPy on its way to the devices
GAPS = 16  # kinds of gaps between two items, the last from 2 years on


class History(NamedTuple):
    """B rows of L columns, right padded; a row may hold several histories (segments).

    Attributes:
      tokens: `[B, L]` int, MASK where an item is asked for.
      thumbs: `[B, L]` int in [0, 4): none, down, up, two up; none where an item is asked for.
      positions: `[B, L]` int in [0, max_length); the newest item sits at `max_length - 1`.
      segments: `[B, L]` int, 0 on padding; a position sees its own segment only.
      causal: `[B, L]` bool, true where a position sees itself and what is before it only.
      days: `[B, L]` float32, when each item was watched, or is asked for; None where times are not
        read.
      since: `[B, L]` int32 seconds since the item before it in its history, 0 for the first; with
        `days`.
      users: `[B, L or 1, G]` float32, what is known of the user at each column, or of a row's only
        user; None for models that do not read it.
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
    """`[B, L, L]` bool: which columns each column may look at."""
    segments = history.segments
    same = (segments[:, :, None] == segments[:, None, :]) & (segments[:, None, :] != 0)
    columns = jnp.arange(segments.shape[1])
    allowed: jax.Array = same & (~history.causal[:, :, None] | (columns <= columns[:, None]))
    return allowed


def moments(history: History) -> tuple[jax.Array, jax.Array]:
    """When the answer at each column is asked for, and how long after the item before it.

    At a causal column that is the time of the column after it, whose item it has to name.

    Returns:
      `[B, L]` float32 days; and `[B, L]` int32 in [0, GAPS): 0 for no time at all, then up to 1, 3,
      7, 15, ... hours.
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
