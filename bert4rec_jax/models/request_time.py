"""RequestTime: lets scores depend on the time of the request.

Two terms are added to the score of an item i at a time t (in days):

    trend(min(t, T)) . e_i                                 what everyone watches at that time
    sum_k a_k cos(w_k (t - s_i)) + b_k sin(w_k (t - s_i))  how old the item is then

where T is the last day of training, as nobody knows the trend of later days, and s_i is the day of
the item's release, or of its first training interaction where that is not known. The frequencies
w_k are fixed, and a and b are computed from the history's vector. The cosine of a difference is a
dot product, so a score has the same form as in every other model: a vector of the history times a
vector of the item, plus a bias.

Items that are older than the log have the day s on which it begins as their s_i: they are of one
age, which is that of the log. It stays as it was on day T as well, with min(t, T) for t: training
has not seen what comes after. Where no day of release is known at all, this holds for every item:
what is first watched late may be old.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

PERIODS = np.geomspace(2, 2048, 21)  # days


class RequestTime(nn.Module):
    """Appends `2 * len(PERIODS) + 1` columns to the vectors of histories and of items.

    The collection `catalog` holds `first_day` `[V]` float32: the day s_i of each item; 0 where it
    is not known, and then the score has no age term. `begin_day` is s, and `last_day` is T. `dated`
    is whether the day of release of any item is known.
    """

    num_rows: int
    dim: int
    kernel_init: Any

    def setup(self) -> None:
        """Create the submodules."""
        self.first_day = self.variable(
            "catalog", "first_day", jnp.zeros, (self.num_rows,), jnp.float32
        )
        self.begin_day = self.variable("catalog", "begin_day", jnp.zeros, (), jnp.float32)
        self.last_day = self.variable("catalog", "last_day", jnp.zeros, (), jnp.float32)
        self.dated = self.variable("catalog", "dated", jnp.zeros, (), bool)
        self.trend_hidden = nn.Dense(2 * self.dim)
        self.trend = nn.Dense(self.dim, kernel_init=self.kernel_init)
        self.age = nn.Dense(2 * len(PERIODS), kernel_init=self.kernel_init)

    def histories(self, hidden: jax.Array, days: jax.Array) -> jax.Array:
        """Widen `[B, S, D]` vectors by `2 * len(PERIODS) + 1` columns, for requests at `days`.

        `days` is `[B, S]`, the time of each request in days.
        """
        known = jnp.minimum(days, self.last_day.value)
        waves = jnp.concatenate(_waves(known), axis=-1)
        hidden = hidden + self.trend(nn.gelu(self.trend_hidden(waves)))
        cosine, sine = _waves(jnp.where(self.dated.value, days, known))
        a, b = jnp.split(self.age(hidden), 2, axis=-1)
        parts = [hidden, a * cosine + b * sine, a * sine - b * cosine]
        cosine, sine = _waves(known - self.begin_day.value)
        of_old = (a * cosine + b * sine).sum(-1, keepdims=True)
        return jnp.concatenate([*parts, of_old], axis=-1)

    def items(self, vectors: jax.Array) -> jax.Array:
        """Widen `[V, D]` item vectors by `2 * len(PERIODS) + 1` columns."""
        first = self.first_day.value[:, None]
        new = first > self.begin_day.value
        cosine, sine = (jnp.where(new, wave, 0) for wave in _waves(first[:, 0]))
        old = jnp.where(new, 0, first > 0).astype(jnp.float32)
        return jnp.concatenate([vectors, cosine, sine, old], axis=-1)


def _waves(days: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine features for every period: `[...]` to two `[..., len(PERIODS)]` arrays."""
    angles = days[..., None] * jnp.asarray(2 * np.pi / PERIODS, jnp.float32)
    return jnp.cos(angles), jnp.sin(angles)
