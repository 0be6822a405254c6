"""TwoTower: a user as one vector, an item as another, and a score as their product.

The user tower reads a history from the left, so every position of a training row is a user of its
own, with the next item as its target. The item tower is the item table: id plus content. Dimensions
as in `bert4rec`.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert4rec_jax.models.dropout import Dropout
from bert4rec_jax.models.history import History, visible
from bert4rec_jax.models.item_table import ItemTable
from bert4rec_jax.models.layers import FeedForward, TransformerLayer, layer_norm, unit_length
from bert4rec_jax.models.pooling import Pooling
from bert4rec_jax.sharding import look_up


class TwoTower(nn.Module):
    """Both towers. Field meanings: `config.ModelConfig`; `content_dim` as in `BERT4Rec`.

    User tower: item vectors, `layers` transformer layers (perhaps none), `Pooling`, a feed-forward
    layer with a residual connection, and BERT4Rec's output transform. Without layers and without
    `position_bias` it is a pooled tower, which knows no order. Where `History.users` is given, a
    projection of it joins the pooled history.
    """

    num_rows: int
    max_length: int
    dim: int
    heads: int
    layers: int
    ffn_dim: int
    ffn: Literal["gelu", "swiglu"]
    norm: Literal["post", "pre"]
    position_bias: bool
    head: Literal["gelu", "linear"]
    dropout: float
    attention_dropout: float
    fused: bool
    init_scale: float
    thumbs: bool
    times: bool  # always False: see `config.ModelConfig`
    unknown_rate: float
    temperature: float
    dtype: Any
    content_dim: int

    def setup(self) -> None:
        """Create the submodules."""
        init = nn.initializers.truncated_normal(self.init_scale)
        dtype = jnp.dtype(self.dtype)
        recency = self.max_length if self.position_bias else 0
        self.item_table = ItemTable(
            self.num_rows, self.dim, init, self.content_dim, self.unknown_rate
        )
        if self.thumbs:
            self.thumb_embedding = self.param("thumb_embedding", init, (4, self.dim), jnp.float32)
        self.input_norm = layer_norm(dtype, "input_norm")
        self.drop = Dropout(self.dropout)
        self.transformer = [
            TransformerLayer(
                dim=self.dim,
                heads=self.heads,
                ffn_dim=self.ffn_dim,
                ffn=self.ffn,
                norm=self.norm,
                dropout=self.dropout,
                attention_dropout=self.attention_dropout,
                position_bias=recency,
                fused=self.fused,
                dtype=dtype,
                kernel_init=init,
            )
            for _ in range(self.layers)
        ]
        self.pooling = Pooling(self.dim, self.heads, self.attention_dropout, recency, dtype, init)
        self.pooled_norm = layer_norm(dtype, "pooled_norm")
        # Without a call it has no parameters. What no user of training has stays at zero.
        self.user_features = nn.Dense(
            self.dim, use_bias=False, dtype=dtype, kernel_init=nn.initializers.zeros
        )
        self.feed_forward = FeedForward(self.dim, self.ffn_dim, self.ffn, dtype, init)
        self.transform = nn.Dense(self.dim, dtype=dtype, kernel_init=init)
        self.head_norm = layer_norm(dtype, "head_norm")

    def encode(self, history: History, slots: jax.Array, *, deterministic: bool) -> jax.Array:
        """`[B, S, D]` float32 user vectors of what is seen from the given slots `[B, S]`."""
        return self(history, slots, deterministic=deterministic)[0]

    def item_vectors(self) -> tuple[jax.Array, jax.Array]:
        """The catalog as `[V, D]` vectors and `[V]` biases, float32."""
        vectors, bias = self.item_table(deterministic=True)
        return unit_length(vectors) if self.temperature else vectors, bias

    def __call__(
        self, history: History, slots: jax.Array, *, deterministic: bool
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """`encode` and `item_vectors` together: `[B, S, D]`, `[V, D]`, `[V]`."""
        vectors, bias = self.item_table(deterministic=deterministic)
        h = look_up(vectors, history.tokens)
        if self.thumbs:
            h = h + self.thumb_embedding[history.thumbs]
        h = self.input_norm(h.astype(self.dtype))
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
        h = self.transform(h)
        h = self.head_norm(nn.gelu(h) if self.head == "gelu" else h).astype(jnp.float32)
        if self.temperature:
            h, vectors = unit_length(h) / self.temperature, unit_length(vectors)
        return h, vectors, bias
