"""The transformer layer of BERT4Rec: attention, feed-forward network, residuals.

Dimensions: B rows, L positions, Q queries, D width, H heads, K width of a head (D / H).
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Initializer = Any


def attention_weights(queries: jax.Array, keys: jax.Array, visible: jax.Array) -> jax.Array:
    """`softmax(Q K^T / sqrt(K))` (Vaswani et al. 2017, eq. 1).

    Args:
      queries: `[B, H, Q, K]`.
      keys: `[B, H, L, K]`.
      visible: `[B, Q, L]`, true where a query may look. A query that may look nowhere gets uniform
        weights; its result has to be ignored.

    Returns:
      `[B, H, Q, L]` float32, each row summing to 1: bfloat16 would lose the tail of the softmax.
    """
    logits = jnp.einsum("BHQK,BHLK->BHQL", queries, keys, preferred_element_type=jnp.float32)
    logits = logits / jnp.sqrt(jnp.float32(queries.shape[-1]))
    return jax.nn.softmax(jnp.where(visible[:, None], logits, -1e30), axis=-1)


class MultiHeadAttention(nn.Module):
    """H heads of scaled dot-product attention with an output projection.

    Queries may be fewer than the positions they look at: the last layer asks only at the slots
    whose results are used, which changes no result.
    """

    dim: int
    heads: int
    dropout: float
    dtype: Any
    kernel_init: Initializer

    @nn.compact
    def __call__(
        self, queries: jax.Array, context: jax.Array, visible: jax.Array, *, deterministic: bool
    ) -> jax.Array:
        """`[B, Q, D], [B, L, D], [B, Q, L] -> [B, Q, D]`."""

        def project(name: str, x: jax.Array) -> jax.Array:
            heads = (self.heads, self.dim // self.heads)
            dense = nn.DenseGeneral(
                heads, dtype=self.dtype, kernel_init=self.kernel_init, name=name
            )
            return dense(x).swapaxes(1, 2)

        weights = attention_weights(project("query", queries), project("key", context), visible)
        weights = nn.Dropout(self.dropout)(weights, deterministic=deterministic)
        values = project("value", context)
        mixed = jnp.einsum("BHQL,BHLK->BQHK", weights.astype(values.dtype), values)
        return nn.DenseGeneral(
            self.dim, axis=(-2, -1), dtype=self.dtype, kernel_init=self.kernel_init, name="output"
        )(mixed)


class FeedForward(nn.Module):
    """Two dense layers with a GELU between them, applied at every position."""

    dim: int
    hidden: int
    dtype: Any
    kernel_init: Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., D] -> [..., D]`."""
        x = nn.Dense(self.hidden, dtype=self.dtype, kernel_init=self.kernel_init, name="expand")(x)
        return nn.Dense(self.dim, dtype=self.dtype, kernel_init=self.kernel_init, name="project")(
            nn.gelu(x)
        )


class TransformerLayer(nn.Module):
    """Attention and feed-forward network, each with dropout and a residual connection.

    `norm="post"` is the paper's `h = LN(h + MHA(h)); h = LN(h + FFN(h))` (Sun et al. 2019, eq. 4);
    `norm="pre"` is `h = h + MHA(LN(h)); h = h + FFN(LN(h))`, which needs a layer norm at the end.
    """

    dim: int
    heads: int
    ffn_dim: int
    norm: Literal["post", "pre"]
    dropout: float
    attention_dropout: float
    dtype: Any
    kernel_init: Initializer

    @nn.compact
    def __call__(
        self, queries: jax.Array, context: jax.Array, visible: jax.Array, *, deterministic: bool
    ) -> jax.Array:
        """`[B, Q, D], [B, L, D], [B, Q, L] -> [B, Q, D]`."""
        attention = MultiHeadAttention(
            self.dim,
            self.heads,
            self.attention_dropout,
            self.dtype,
            self.kernel_init,
            name="attention",
        )
        feed_forward = FeedForward(
            self.dim, self.ffn_dim, self.dtype, self.kernel_init, name="feed_forward"
        )
        norm_1 = layer_norm(self.dtype, "attention_norm")
        norm_2 = layer_norm(self.dtype, "feed_forward_norm")
        drop = nn.Dropout(self.dropout, deterministic=deterministic)
        if self.norm == "post":
            mixed = attention(queries, context, visible, deterministic=deterministic)
            h = norm_1(queries + drop(mixed))
            return norm_2(h + drop(feed_forward(h)))
        mixed = attention(norm_1(queries), norm_1(context), visible, deterministic=deterministic)
        h = queries + drop(mixed)
        return h + drop(feed_forward(norm_2(h)))


def layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    """Layer norm with BERT's epsilon."""
    return nn.LayerNorm(epsilon=1e-12 if dtype == jnp.float32 else 1e-6, dtype=dtype, name=name)
