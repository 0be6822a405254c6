"""Pooling: a history as weighted means of its items, cheap enough to compute at every position.

Dimensions: B rows, L positions, Q queries, D width, H heads, K width of a head (D / H).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert4rec_jax.models.dropout import Dropout
from bert4rec_jax.models.initial import Initial
from bert4rec_jax.models.layers import RelativePositionBias


class Pooling(nn.Module):
    """Per head, the mean of the items visible to a query, weighted by item and by distance:

        w_j = softmax_j(x_j . a_h + r_h[distance])        result = W concat_h sum_j w_j V_h x_j

    `a_h` is attention pooling with one learned query per head (Lin et al. 2017), `r_h` is a learned
    recency weight. The weights do not depend on the item at the query's own position, only on the
    distance to it.
    """

    dim: int
    heads: int
    dropout: float
    recency: int  # max. row length for a weight per distance; 0: no such weight
    dtype: Any
    initial: Initial

    @nn.compact
    def __call__(
        self, context: jax.Array, visible: jax.Array, columns: jax.Array, *, deterministic: bool
    ) -> jax.Array:
        """`[B, L, D], [B, Q, L] -> [B, Q, D]`, for queries at `columns [B, Q]`."""

        random, passing, _ = self.initial
        importance = nn.Dense(self.heads, dtype=self.dtype, kernel_init=random, name="importance")
        by_item = importance(context).astype(jnp.float32)
        logits = by_item.swapaxes(1, 2)[:, :, None, :]
        if self.recency:
            recency = RelativePositionBias(self.heads, self.recency, name="recency")
            logits = logits + recency(columns, context.shape[1])
        weights = jax.nn.softmax(jnp.where(visible[:, None], logits, -1e30), axis=-1)
        weights = Dropout(self.dropout)(weights, deterministic=deterministic)
        heads = self.heads, self.dim // self.heads
        value = nn.DenseGeneral(heads, dtype=self.dtype, kernel_init=passing, name="value")
        values = value(context)
        mixed = jnp.einsum("BHQL,BLHK->BQHK", weights.astype(values.dtype), values)
        return nn.DenseGeneral(
            self.dim, axis=(-2, -1), dtype=self.dtype, kernel_init=passing, name="output"
        )(mixed)
