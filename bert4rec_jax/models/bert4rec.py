"""BERT4Rec: a history, read in both directions, to a vector per masked position.

Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from
Transformer", CIKM 2019. Dimensions: B rows, L positions, S slots, D width, V rows of the table.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert4rec_jax.models.dropout import Dropout
from bert4rec_jax.models.item_table import ItemTable
from bert4rec_jax.models.layers import TransformerLayer, layer_norm


class BERT4Rec(nn.Module):
    """The encoder and the tied output table. Field meanings: `config.ModelConfig`."""

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
    init_scale: float
    dtype: Any

    def setup(self) -> None:
        """Create the submodules."""
        init = nn.initializers.truncated_normal(self.init_scale)
        self.item_table = ItemTable(self.num_rows, self.dim, init)
        self.position_embedding = self.param(
            "position_embedding", init, (self.max_length, self.dim), jnp.float32
        )
        self.input_norm = layer_norm(self._dtype, "input_norm")
        self.input_dropout = Dropout(self.dropout)
        self.transformer = [
            TransformerLayer(
                dim=self.dim,
                heads=self.heads,
                ffn_dim=self.ffn_dim,
                ffn=self.ffn,
                norm=self.norm,
                dropout=self.dropout,
                attention_dropout=self.attention_dropout,
                position_bias=self.max_length if self.position_bias else 0,
                dtype=self._dtype,
                kernel_init=init,
            )
            for _ in range(self.layers)
        ]
        if self.norm == "pre":
            self.final_norm = layer_norm(self._dtype, "final_norm")
        self.transform = nn.Dense(self.dim, dtype=self._dtype, kernel_init=init)
        self.head_norm = layer_norm(self._dtype, "head_norm")

    @property
    def _dtype(self) -> Any:
        return jnp.dtype(self.dtype)

    def encode(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segments: jax.Array,
        slots: jax.Array,
        causal: jax.Array,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Vectors at the given slots; a score is their dot product with an item's vector plus bias.

        Args:
          tokens: `[B, L]` int, MASK where an item is asked for.
          positions: `[B, L]` int in [0, max_length); the newest item sits at `max_length - 1`.
          segments: `[B, L]` int, 0 on padding; a position sees its own segment only.
          slots: `[B, S]` int in [0, L): the positions whose vectors are wanted.
          causal: `[B, L]` bool, true where a position sees itself and what is before it only.
          deterministic: no dropout.

        Returns:
          `[B, S, D]` float32.
        """
        vectors = self.item_table.lookup(tokens) + self.position_embedding[positions]
        h = self.input_norm(vectors.astype(self._dtype))
        h = self.input_dropout(h, deterministic=deterministic)
        visible = (segments[:, :, None] == segments[:, None, :]) & (segments[:, None, :] != 0)
        columns = jnp.arange(tokens.shape[1])
        visible &= ~causal[:, :, None] | (columns <= columns[:, None])
        for layer in self.transformer[:-1]:
            h = layer(h, h, visible, deterministic=deterministic)
        # The last layer's results are read at the slots only, so it is computed there only.
        asked = jnp.take_along_axis(h, slots[:, :, None], axis=1)
        seen = jnp.take_along_axis(visible, slots[:, :, None], axis=1)
        h = self.transformer[-1](asked, h, seen, slots, deterministic=deterministic)
        if self.norm == "pre":
            h = self.final_norm(h)
        h = self.transform(h)
        return self.head_norm(nn.gelu(h) if self.head == "gelu" else h).astype(jnp.float32)

    def item_vectors(self) -> tuple[jax.Array, jax.Array]:
        """The catalog as `[V, D]` vectors and `[V]` biases, float32."""
        return self.item_table.all_vectors()

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segments: jax.Array,
        slots: jax.Array,
        causal: jax.Array,
        *,
        deterministic: bool,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """`encode` and `item_vectors` together: `[B, S, D]`, `[V, D]`, `[V]`."""
        encoded = self.encode(
            tokens, positions, segments, slots, causal, deterministic=deterministic
        )
        return encoded, *self.item_vectors()
