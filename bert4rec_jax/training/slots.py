"""Slots: the positions of a batch that predict an item, which a loss is computed over."""

from __future__ import annotations

from typing import NamedTuple

import jax


class Slots(NamedTuple):
    """The slots of a batch of B rows, and the items of the histories that they belong to.

    Attributes:
      hidden: `[B, S, D]` float32, one vector per slot.
      labels: `[B, S]` target items, rows of the item table.
      weights: `[B, S]` float32 loss weights, 0 at unused slots.
      segments: `[B, S]` number of each slot's history within its row, from 1.
      tokens: `[B, L]` all items of the rows, before masking.
      token_segments: `[B, L]` number of each item's history within its row, 0 on padding.
    """

    hidden: jax.Array
    labels: jax.Array
    weights: jax.Array
    segments: jax.Array
    tokens: jax.Array
    token_segments: jax.Array
