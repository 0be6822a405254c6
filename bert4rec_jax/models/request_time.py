"""RequestTime: what the moment that is asked about says of the answer.

Two things, both added to the plain score of an item i at a moment t (in days):

    trend(t) . e_i                                         what everyone watches at that time
    sum_k a_k cos(w_k (t - s_i)) + b_k sin(w_k (t - s_i))  how old the item is then

where s_i is the day on which training first saw the item, the frequencies w_k are fixed, and a, b
are read off the history's vector. Cosines of a difference are dot products, so a score stays what
it is for every model here: a vector of the history times a vector of the item, plus a bias.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

PERIODS = np.geomspace(2, 2048, 21)  # days


class RequestTime(nn.Module):
    """Widens the vectors of histories and items by `2 * len(PERIODS)` columns.

    The collection `catalog` holds `first_day` `[V]` float32: when training first saw each item, in
    days; 0 for items that it did not see, whose age counts nothing.
    """

    num_rows: int
    dim: int
    kernel_init: Any

    def setup(self) -> None:
        """Create the submodules."""
        self.first_day = self.variable(
            "catalog", "first_day", jnp.zeros, (self.num_rows,), jnp.float32
        )
        self.trend_hidden = nn.Dense(2 * self.dim)
        self.trend = nn.Dense(self.dim, kernel_init=self.kernel_init)
        self.age = nn.Dense(2 * len(PERIODS), kernel_init=self.kernel_init)

    def histories(self, hidden: jax.Array, days: jax.Array) -> jax.Array:
        """`[B, S, D]` vectors, asked at `days [B, S]`, to `[B, S, D + 2 * len(PERIODS)]`."""
        cosine, sine = _waves(days)
        waves = jnp.concatenate([cosine, sine], axis=-1)
        hidden = hidden + self.trend(nn.gelu(self.trend_hidden(waves)))
        a, b = jnp.split(self.age(hidden), 2, axis=-1)
        return jnp.concatenate([hidden, a * cosine + b * sine, a * sine - b * cosine], axis=-1)

    def items(self, vectors: jax.Array) -> jax.Array:
        """`[V, D]` vectors to `[V, D + 2 * len(PERIODS)]`."""
        first = self.first_day.value
        cosine, sine = (jnp.where(first[:, None] > 0, wave, 0) for wave in _waves(first))
        return jnp.concatenate([vectors, cosine, sine], axis=-1)


def _waves(days: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines of every period: `[...]` to twice `[..., len(PERIODS)]`."""
    angles = days[..., None] * jnp.asarray(2 * np.pi / PERIODS, jnp.float32)
    return jnp.cos(angles), jnp.sin(angles)
