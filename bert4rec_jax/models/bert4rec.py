"""BERT4Rec: encodes a history bidirectionally into one vector per masked position.

Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from
Transformer", CIKM 2019. Dimensions: B rows, L positions, S slots, D width, V rows of the table.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert4rec_jax.models.dropout import Dropout
from bert4rec_jax.models.history import GAPS, History, moments, visible
from bert4rec_jax.models.item_table import ItemTable
from bert4rec_jax.models.layers import TransformerLayer, layer_norm, unit_length
from bert4rec_jax.models.request_time import RequestTime
from bert4rec_jax.sharding import look_up


class BERT4Rec(nn.Module):
    """The encoder, with the item table shared by input and output. Fields: `config.ModelConfig`.

    `content_dim` is the number F of content features per item, 0 without content.
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
    times: bool
    unknown_rate: float
    temperature: float
    dtype: Any
    content_dim: int

    def setup(self) -> None:
        """Create the submodules."""
        init = nn.initializers.truncated_normal(self.init_scale)
        self.item_table = ItemTable(
            self.num_rows, self.dim, init, self.content_dim, self.unknown_rate
        )
        self.position_embedding = self.param(
            "position_embedding", init, (self.max_length, self.dim), jnp.float32
        )
        if self.thumbs:
            self.thumb_embedding = self.param("thumb_embedding", init, (4, self.dim), jnp.float32)
        if self.times:
            self.gap_embedding = self.param("gap_embedding", init, (GAPS, self.dim), jnp.float32)
            self.request_time = RequestTime(self.num_rows, self.dim, init)
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
                fused=self.fused,
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

    def encode(self, history: History, slots: jax.Array, *, deterministic: bool) -> jax.Array:
        """Encode histories at the given slots.

        The score of an item is the dot product of a returned vector and the item's vector, plus the
        item's bias.

        Args:
          history: the histories to encode.
          slots: `[B, S]` int in [0, L): the columns to return vectors for.
          deterministic: whether to disable dropout.

        Returns:
          `[B, S, D]` float32; with `times` wider than D, see `RequestTime`.
        """
        return self(history, slots, deterministic=deterministic)[0]

    def item_vectors(self) -> tuple[jax.Array, jax.Array]:
        """The catalog as `[V, D]` vectors and `[V]` biases, float32; with `times` wider than D."""
        vectors, bias = self.item_table(deterministic=True)
        return self._widened(unit_length(vectors) if self.temperature else vectors), bias

    def __call__(
        self, history: History, slots: jax.Array, *, deterministic: bool
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return the results of `encode` and `item_vectors`: `[B, S, D]`, `[V, D]`, `[V]`."""
        vectors, bias = self.item_table(deterministic=deterministic)
        h = look_up(vectors, history.tokens) + self.position_embedding[history.positions]
        if self.thumbs:
            h = h + self.thumb_embedding[history.thumbs]
        if self.times:
            days, gaps = moments(history)
            h = h + self.gap_embedding[gaps]
        h = self.input_norm(h.astype(self._dtype))
        h = self.input_dropout(h, deterministic=deterministic)
        seen = visible(history)
        for layer in self.transformer[:-1]:
            h = layer(h, h, seen, deterministic=deterministic)
        # Only the slots' outputs are used, so the last layer is computed for these queries only.
        asked = jnp.take_along_axis(h, slots[:, :, None], axis=1)
        seen = jnp.take_along_axis(seen, slots[:, :, None], axis=1)
        h = self.transformer[-1](asked, h, seen, slots, deterministic=deterministic)
        if self.norm == "pre":
            h = self.final_norm(h)
        h = self.transform(h)
        h = self.head_norm(nn.gelu(h) if self.head == "gelu" else h).astype(jnp.float32)
        if self.temperature:
            h, vectors = unit_length(h) / self.temperature, unit_length(vectors)
        if self.times:
            h = self.request_time.histories(h, jnp.take_along_axis(days, slots, axis=1))
        return h, self._widened(vectors), bias

    def _widened(self, vectors: jax.Array) -> jax.Array:
        return self.request_time.items(vectors) if self.times else vectors
