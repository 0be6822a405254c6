"""TwoTower: one vector per user, one per item; their dot product plus the item's bias is the score.

The user tower reads a history causally, so every position of a training row is a training example
whose target is the next item. The item tower is the item table: id plus content. Dimensions are
named as in `sequence_model`.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert4rec_jax.models.dropout import Dropout
from bert4rec_jax.models.history import History, visible
from bert4rec_jax.models.layers import FeedForward, layer_norm
from bert4rec_jax.models.pooling import Pooling
from bert4rec_jax.models.sequence_model import SequenceModel
from bert4rec_jax.sharding import look_up


class TwoTower(SequenceModel):
    """Both towers; `times` is always false, see `config.ModelConfig`.

    User tower: item vectors, `layers` transformer layers (possibly 0), `Pooling`, a feed-forward
    layer with a residual connection, and BERT4Rec's output transform. Without transformer layers
    and without `position_bias`, the order of a history has no effect. If `History.users` is given,
    a linear projection of it is added to the pooled history.
    """

    def setup(self) -> None:
        """Create the submodules."""
        initial, dtype = self._initialisers, self._computed_in
        recency = self.max_length if self.position_bias else 0
        self.item_table = self._new_table()
        if self.thumbs:
            self.thumb_embedding = self.param(
                "thumb_embedding", initial.random, (4, self.dim), jnp.float32
            )
        self.input_norm = layer_norm(dtype, "input_norm")
        self.drop = Dropout(self.dropout)
        self.transformer = self._new_layers()
        self.pooling = Pooling(
            self.dim, self.heads, self.attention_dropout, recency, dtype, initial
        )
        self.pooled_norm = layer_norm(dtype, "pooled_norm")
        # Flax creates no parameters unless this is called. Weights start at zero, so those of
        # features that no training user has stay zero.
        self.user_features = nn.Dense(
            self.dim, use_bias=False, dtype=dtype, kernel_init=nn.initializers.zeros
        )
        self.feed_forward = FeedForward(self.dim, self.ffn_dim, self.ffn, dtype, initial)
        self._set_up_head()

    def __call__(
        self, history: History, slots: jax.Array, *, deterministic: bool
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return the results of `encode` and `item_vectors`: `[B, S, D]`, `[V, D]`, `[V]`."""
        vectors, bias = self.item_table(deterministic=deterministic)
        h = look_up(vectors, history.tokens)
        if self.thumbs:
            h = h + self.thumb_embedding[history.thumbs]
        h = self.input_norm(h.astype(self._computed_in))
        h = self.drop(h, deterministic=deterministic)
        seen = visible(history)
        for layer in self.transformer:
            h = layer(h, h, seen, deterministic=deterministic)
        seen = jnp.take_along_axis(seen, slots[:, :, None], axis=1)
        h = self.pooled_norm(self.pooling(h, seen, slots, deterministic=deterministic))
        if history.users is not None:
            users = jnp.asarray(history.users)
            if users.shape[1] != 1:
                users = jnp.take_along_axis(users, slots[:, :, None], axis=1)
            h = h + self.user_features(users)
        h = h + self.drop(self.feed_forward(h), deterministic=deterministic)
        return self._head(h), self._compared(vectors), bias
