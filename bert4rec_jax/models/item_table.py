"""ItemTable: what the model knows of each item, at its input and at its output."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class ItemTable(nn.Module):
    """A vector and a bias per token. The one place that turns tokens into vectors.

    The same vectors feed the encoder and score its output, so whatever joins an item's vector
    (content, say) joins both.
    """

    num_rows: int
    dim: int
    kernel_init: Any

    def setup(self) -> None:
        """Create the parameters."""
        self.embedding = self.param(
            "embedding", self.kernel_init, (self.num_rows, self.dim), jnp.float32
        )
        self.bias = self.param("bias", nn.initializers.zeros, (self.num_rows,), jnp.float32)

    def lookup(self, tokens: jax.Array) -> jax.Array:
        """`[...]` tokens to `[..., D]` float32 vectors."""
        return self.embedding[tokens]

    def all_vectors(self) -> tuple[jax.Array, jax.Array]:
        """The whole catalog: `[V, D]` vectors and `[V]` biases, float32."""
        return self.embedding, self.bias
