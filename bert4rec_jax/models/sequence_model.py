"""SequenceModel: what BERT4Rec and two towers have in common, and how both are asked.

Dimensions: B rows, L positions, S slots, D width, V rows of the table.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert4rec_jax.models.history import History
from bert4rec_jax.models.initial import Initial, initialisers
from bert4rec_jax.models.item_table import ItemTable
from bert4rec_jax.models.layers import TransformerLayer, layer_norm, unit_length


class SequenceModel(nn.Module):
    """A model whose scores are dot products of user vectors and item vectors, plus item biases.

    The item table serves input and output. Fields: `config.ModelConfig`; `content_dim` is the
    number F of content features per item, 0 without content.
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
    initial: Literal["random", "identity"]
    init_scale: float
    thumbs: bool
    times: bool
    unknown_rate: float
    temperature: float
    dtype: Any
    content_dim: int

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
        hidden: jax.Array = self(history, slots, deterministic=deterministic)[0]
        return hidden

    def item_vectors(self) -> tuple[jax.Array, jax.Array]:
        """The catalog as `[V, D]` vectors and `[V]` biases, float32; with `times` wider than D."""
        vectors, bias = self.item_table(deterministic=True)
        return self._compared(vectors), bias

    def _compared(self, vectors: jax.Array) -> jax.Array:
        """Item vectors in the form whose product with the vectors of `encode` is a score."""
        return unit_length(vectors) if self.temperature else vectors

    def _set_up_head(self) -> None:
        """Create the submodules of `_head`; called by `setup`."""
        dtype = self._computed_in
        self.transform = nn.Dense(self.dim, dtype=dtype, kernel_init=self._initialisers.passing)
        self.head_norm = layer_norm(dtype, "head_norm")

    def _head(self, h: jax.Array) -> jax.Array:
        """What the encoder returns for hidden states: `[B, S, D]` to `[B, S, D]` float32."""
        h = self.transform(h)
        h = self.head_norm(nn.gelu(h) if self.head == "gelu" else h).astype(jnp.float32)
        return unit_length(h) / self.temperature if self.temperature else h

    @property
    def _computed_in(self) -> Any:
        return jnp.dtype(self.dtype)

    @property
    def _initialisers(self) -> Initial:
        return initialisers(self.initial, self.init_scale)

    def _new_table(self) -> ItemTable:
        return ItemTable(
            self.num_rows, self.dim, self._initialisers.random, self.content_dim, self.unknown_rate
        )

    def _new_layers(self) -> list[TransformerLayer]:
        return [
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
                dtype=self._computed_in,
                initial=self._initialisers,
            )
            for _ in range(self.layers)
        ]
