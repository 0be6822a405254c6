"""ItemTable: the item embeddings and biases, shared by the model's input and output."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert4rec_jax.models.dropout import hashed_bits


class ItemTable(nn.Module):
    """A vector and a bias per token. The only place that turns tokens into vectors.

    The same vectors are the encoder's input and score its output. Without content they are learned
    embeddings and biases, one per id. With content (`content_dim` F > 0)

        vector_i = id_i + c_i W_content        bias_i = b_i + c_i w_bias

    where c_i are the item's content features. Items that the model was not trained on use a shared
    learned pair `unknown` instead of (id_i, b_i). During training every item uses that pair with
    probability `unknown_rate`, drawn once per step for input and output alike. So the model learns
    to score items without their id, and items without any interaction get a vector and a score.
    Items whose features are all 0 keep their own pair.

    The collection `catalog` holds `features` `[V, F]` float32, 0 for tokens that are not items,
    `trained` `[V]` bool, and optionally `offset`, a scalar added to the bias of items that were not
    trained on. These are constants, not parameters.
    """

    num_rows: int
    dim: int
    kernel_init: Any
    content_dim: int
    unknown_rate: float

    @nn.compact
    def __call__(self, *, deterministic: bool) -> tuple[jax.Array, jax.Array]:
        """The whole catalog: `[V, D]` vectors and `[V]` biases, float32.

        Needs an RNG key named `dropout`, except if `deterministic`, without content, or with
        `unknown_rate` 0.
        """
        zeros = nn.initializers.zeros
        shape = (self.num_rows, self.dim)
        vectors = self.param("embedding", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", zeros, (self.num_rows,), jnp.float32)
        if not self.content_dim:
            return vectors, bias
        features = self.variable(
            "catalog", "features", jnp.zeros, (self.num_rows, self.content_dim), jnp.float32
        ).value
        trained = self.variable("catalog", "trained", jnp.zeros, (self.num_rows,), bool).value
        columns = (self.content_dim,)
        w_content = self.param("content", self.kernel_init, (*columns, self.dim), jnp.float32)
        w_bias = self.param("content_bias", zeros, columns, jnp.float32)
        unknown = self.param("unknown", self.kernel_init, (self.dim,), jnp.float32)
        unknown_bias = self.param("unknown_bias", zeros, (), jnp.float32)
        without_id = ~trained
        offset = jnp.where(trained, 0.0, self.get_variable("catalog", "offset", 0.0))
        if not deterministic and self.unknown_rate > 0:
            words = jax.random.bits(self.make_rng("dropout"), (2,), jnp.uint32)
            drawn = hashed_bits(words, trained.shape) < jnp.uint32(self.unknown_rate * 2**32)
            without_id |= drawn
        without_id &= (features != 0).any(-1)  # MASK and items without content keep their own pair
        vectors = jnp.where(without_id[:, None], unknown, vectors)
        bias = jnp.where(without_id, unknown_bias, bias)
        return vectors + features @ w_content, bias + features @ w_bias + offset
