"""BERT4Rec: encodes a history bidirectionally into one vector per masked position.

Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from
Transformer", CIKM 2019. Dimensions are named as in `sequence_model`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bert4rec_jax.models.dropout import Dropout
from bert4rec_jax.models.history import GAPS, History, moments, visible
from bert4rec_jax.models.layers import layer_norm
from bert4rec_jax.models.request_time import RequestTime
from bert4rec_jax.models.sequence_model import SequenceModel
from bert4rec_jax.sharding import look_up


class BERT4Rec(SequenceModel):
    """The encoder, with the item table shared by input and output."""

    def setup(self) -> None:
        """Create the submodules."""
        init, dtype = self._initialisers.random, self._computed_in
        self.item_table = self._new_table()
        self.position_embedding = self.param(
            "position_embedding", init, (self.max_length, self.dim), jnp.float32
        )
        if self.thumbs:
            self.thumb_embedding = self.param("thumb_embedding", init, (4, self.dim), jnp.float32)
        if self.times:
            self.gap_embedding = self.param("gap_embedding", init, (GAPS, self.dim), jnp.float32)
            self.request_time = RequestTime(self.num_rows, self.dim, init)
        self.input_norm = layer_norm(dtype, "input_norm")
        self.input_dropout = Dropout(self.dropout)
        self.transformer = self._new_layers()
        if self.norm == "pre":
            self.final_norm = layer_norm(dtype, "final_norm")
        self._set_up_head()

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
        h = self.input_norm(h.astype(self._computed_in))
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
        h = self._head(h)
        if self.times:
            h = self.request_time.histories(h, jnp.take_along_axis(days, slots, axis=1))
        return h, self._compared(vectors), bias

    def _compared(self, vectors: jax.Array) -> jax.Array:
        vectors = super()._compared(vectors)
        return self.request_time.items(vectors) if self.times else vectors
