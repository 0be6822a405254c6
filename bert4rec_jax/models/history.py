"""History: rows of histories as every encoder reads them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = Any  # of JAX, or of NumPy on its way to the devices


class History(NamedTuple):
    """B rows of L columns, right padded; a row may hold several histories (segments).

    Attributes:
      tokens: `[B, L]` int, MASK where an item is asked for.
      thumbs: `[B, L]` int in [0, 4): none, down, up, two up; none where an item is asked for.
      positions: `[B, L]` int in [0, max_length); the newest item sits at `max_length - 1`.
      segments: `[B, L]` int, 0 on padding; a position sees its own segment only.
      causal: `[B, L]` bool, true where a position sees itself and what is before it only.
    """

    tokens: Array
    thumbs: Array
    positions: Array
    segments: Array
    causal: Array


def visible(history: History) -> jax.Array:
    """`[B, L, L]` bool: which columns each column may look at."""
    segments = history.segments
    same = (segments[:, :, None] == segments[:, None, :]) & (segments[:, None, :] != 0)
    columns = jnp.arange(segments.shape[1])
    allowed: jax.Array = same & (~history.causal[:, :, None] | (columns <= columns[:, None]))
    return allowed
