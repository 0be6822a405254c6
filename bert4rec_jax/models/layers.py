"""The transformer layer of BERT4Rec: attention, feed-forward network and residual connections.

Dimensions: B rows, L positions, Q queries, D width, H heads, K width of a head (D / H).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert4rec_jax.models.dropout import Dropout
from bert4rec_jax.models.initial import Initial


def attention_weights(
    queries: jax.Array, keys: jax.Array, visible: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    """Attention weights `softmax(Q K^T / sqrt(K) + bias)` (Vaswani et al. 2017, eq. 1).

    Args:
      queries: `[B, H, Q, K]`.
      keys: `[B, H, L, K]`.
      visible: `[B, Q, L]` bool mask, true where a query may attend. A query without any visible
        position gets uniform weights; the caller has to ignore its result.
      bias: `[B or 1, H, Q, L]` float32, or None.

    Returns:
      `[B, H, Q, L]`, each row summing to 1. Always float32, because bfloat16 would lose the tail of
      the softmax.
    """
    logits = jnp.einsum("BHQK,BHLK->BHQL", queries, keys, preferred_element_type=jnp.float32)
    logits = logits / jnp.sqrt(jnp.float32(queries.shape[-1]))
    if bias is not None:
        logits = logits + bias
    return jax.nn.softmax(jnp.where(visible[:, None], logits, -1e30), axis=-1)


def fused_attention(
    queries: jax.Array, keys: jax.Array, values: jax.Array, visible: jax.Array
) -> jax.Array:
    """cuDNN flash attention: `attention_weights(...) @ values` without storing the weights.

    Args:
      queries: `[B, H, Q, K]` bfloat16, Q even, K a multiple of 8.
      keys: `[B, H, L, K]`, L even.
      values: `[B, H, L, K]`.
      visible: `[B, Q, L]` bool mask, true where a query may attend.

    Returns:
      `[B, Q, H, K]`.
    """
    q, k, v = (x.swapaxes(1, 2) for x in (queries, keys, values))
    return jax.nn.dot_product_attention(q, k, v, mask=visible[:, None], implementation="cudnn")


class RelativePositionBias(nn.Module):
    """A learned bias per head and relative distance, added to the attention logits.

    Relative positions as in Shaw et al. 2018, in the scalar form of Raffel et al. 2020 but without
    their buckets.
    """

    heads: int
    max_length: int

    @nn.compact
    def __call__(self, columns: jax.Array | None, width: int) -> jax.Array:
        """Biases between queries at `columns [B, Q]` (None: every column) and all columns of a row.

        Columns can stand for positions: within a history their distances are the same, wherever the
        history starts in its row.

        Returns:
          `[B or 1, H, Q, width]` float32.
        """
        distances = 2 * self.max_length - 1
        table = self.param("distance", nn.initializers.zeros, (self.heads, distances), jnp.float32)
        every = jnp.arange(width)
        by_columns = table[:, every - every[:, None] + self.max_length - 1]
        if columns is None:
            return by_columns[None]
        return by_columns[:, columns].swapaxes(0, 1)


class MultiHeadAttention(nn.Module):
    """H heads of scaled dot-product attention with an output projection.

    There may be fewer queries than positions to attend to: the last layer computes only the slots
    that are used, which does not change their results. `fused` needs an NVIDIA GPU, bfloat16, and
    neither dropout nor a position bias. With an odd number of queries or positions, the plain
    implementation runs instead.
    """

    dim: int
    heads: int
    dropout: float
    position_bias: int  # max. row length of the relative position bias; 0: no bias
    fused: bool
    dtype: Any
    initial: Initial

    @nn.compact
    def __call__(
        self,
        queries: jax.Array,
        context: jax.Array,
        visible: jax.Array,
        columns: jax.Array | None = None,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """`[B, Q, D], [B, L, D], [B, Q, L] -> [B, Q, D]`; `columns`: the queries' columns or None.

        None means that there is a query for every column.
        """

        passing = self.initial.passing

        def project(name: str, x: jax.Array) -> jax.Array:
            heads = (self.heads, self.dim // self.heads)
            init = passing if name == "value" else self.initial.random
            dense = nn.DenseGeneral(heads, dtype=self.dtype, kernel_init=init, name=name)
            return dense(x).swapaxes(1, 2)

        output = nn.DenseGeneral(
            self.dim, axis=(-2, -1), dtype=self.dtype, kernel_init=passing, name="output"
        )
        asked, keys, values = (
            project(name, x)
            for name, x in (("query", queries), ("key", context), ("value", context))
        )
        if self.fused and all(length % 2 == 0 for length in visible.shape[1:]):
            return output(fused_attention(asked, keys, values, visible))
        bias = None
        if self.position_bias:
            bias_of = RelativePositionBias(self.heads, self.position_bias, name="position_bias")
            bias = bias_of(columns, context.shape[1])
        weights = attention_weights(asked, keys, visible, bias)
        self.sow("intermediates", "weights", weights)  # stored only on request, see serving.traced
        weights = Dropout(self.dropout)(weights, deterministic=deterministic)
        return output(jnp.einsum("BHQL,BHLK->BQHK", weights.astype(values.dtype), values))


class FeedForward(nn.Module):
    """Position-wise feed-forward network of two dense layers.

    The activation between them is `GELU(a)` (the paper), or `silu(a) * b` with two parallel first
    layers (SwiGLU; Shazeer 2020).
    """

    dim: int
    hidden: int
    activation: Literal["gelu", "swiglu"]
    dtype: Any
    initial: Initial

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., D] -> [..., D]`."""

        def dense(features: int, name: str) -> nn.Dense:
            init = self.initial.added if name == "project" else self.initial.random
            return nn.Dense(features, dtype=self.dtype, kernel_init=init, name=name)

        a = dense(self.hidden, "expand")(x)
        if self.activation == "gelu":
            return dense(self.dim, "project")(nn.gelu(a))
        return dense(self.dim, "project")(nn.silu(a) * dense(self.hidden, "gate")(x))


class TransformerLayer(nn.Module):
    """Attention and feed-forward network, each with dropout and a residual connection.

    `norm="post"` is the paper's `h = LN(h + MHA(h)); h = LN(h + FFN(h))` (Sun et al. 2019, eq. 4);
    `norm="pre"` is `h = h + MHA(LN(h)); h = h + FFN(LN(h))`, which needs a final layer norm after
    the last layer.
    """

    dim: int
    heads: int
    ffn_dim: int
    ffn: Literal["gelu", "swiglu"]
    norm: Literal["post", "pre"]
    dropout: float
    attention_dropout: float
    position_bias: int
    fused: bool
    dtype: Any
    initial: Initial

    @nn.compact
    def __call__(
        self,
        queries: jax.Array,
        context: jax.Array,
        visible: jax.Array,
        columns: jax.Array | None = None,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """`[B, Q, D], [B, L, D], [B, Q, L] -> [B, Q, D]`; `columns`: the queries' columns or None.

        None means that there is a query for every column.
        """
        attention = MultiHeadAttention(
            self.dim,
            self.heads,
            self.attention_dropout,
            self.position_bias,
            self.fused,
            self.dtype,
            self.initial,
            name="attention",
        )
        feed_forward = FeedForward(
            self.dim, self.ffn_dim, self.ffn, self.dtype, self.initial, name="feed_forward"
        )
        norm_1 = layer_norm(self.dtype, "attention_norm")
        norm_2 = layer_norm(self.dtype, "feed_forward_norm")
        drop = partial(Dropout(self.dropout), deterministic=deterministic)
        if self.norm == "post":
            mixed = attention(queries, context, visible, columns, deterministic=deterministic)
            h = norm_1(queries + drop(mixed))
            return norm_2(h + drop(feed_forward(h)))
        mixed = attention(
            norm_1(queries), norm_1(context), visible, columns, deterministic=deterministic
        )
        h = queries + drop(mixed)
        return h + drop(feed_forward(norm_2(h)))


def layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    """Layer norm with BERT's epsilon, 1e-12, in float32; 1e-6 in other dtypes."""
    return nn.LayerNorm(epsilon=1e-12 if dtype == jnp.float32 else 1e-6, dtype=dtype, name=name)


def unit_length(x: jax.Array) -> jax.Array:
    """Normalise `[..., D]` vectors to length 1, in float32; a zero vector stays zero."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-12))
