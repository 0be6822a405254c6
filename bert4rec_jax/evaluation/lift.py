"""Lift: raises items that often followed the last items of a history in other histories.

With counts c_ij of how often j followed i, smoothed towards the popularity q by μ, and the weight
d^k of the k-th last item h_k of a history (the skip-gram Markov chain of `evaluation.markov`),

    p(j | h) ∝ q_j + Σ_k d^k c_{h_k j} / (C_{h_k} + μ) / Σ_k d^k μ / (C_{h_k} + μ),   C_i = Σ_j c_ij

and `weight · log(p(j | h) / q_j)` is added to an item's score. The constant of proportionality is
dropped, as it is the same for all items. So items that never followed get 0, and only a few items
have to be computed. Nothing here is learned by gradient descent; it is added to scores after
training.

The last R items of a history are used, with K followers of each; E = R · K.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bert4rec_jax.data.catalog import PAD

COLLECTION = "covisitation"  # variable collection of a model; made by `Covisitation.collection`
_LEAST = 1e-30


class Boosts(NamedTuple):
    """The items whose scores are raised for B histories.

    Attributes:
      items: `[B, E]` int32; if an item occurs several times, its ratios add up.
      ratios: `[B, E]` float32, at least 0: p / q - 1.
      weights: `[B]` float32 weight of the logarithm.
    """

    items: jax.Array
    ratios: jax.Array
    weights: jax.Array


def boosts_of(found: Mapping[str, Any], histories: jax.Array) -> Boosts:
    """Compute the items to raise for each history, and their ratios.

    Args:
      found: the variable collection: `followers [V, K]` int32, `ratios [V, K]` float32
        (c_ij / (C_i + μ) / q_j), `covered [V]` float32 (C_i / (C_i + μ)), `decays [R]` float32, and
        the scalar `weight`.
      histories: `[B, S]` int tokens, oldest first, padded with PAD on the right.
    """
    decays = found["decays"]
    lengths = (histories != PAD).sum(axis=1, keepdims=True)
    back = lengths - 1 - jnp.arange(decays.shape[0])
    recent = jnp.take_along_axis(histories, jnp.maximum(back, 0), axis=1)
    weights = jnp.where(back >= 0, decays, 0)
    unseen = (weights * (1 - found["covered"][recent])).sum(axis=1)
    shares = weights / jnp.maximum(unseen, _LEAST)[:, None]
    rows = histories.shape[0]
    return Boosts(
        found["followers"][recent].reshape(rows, -1),
        (shares[:, :, None] * found["ratios"][recent]).reshape(rows, -1),
        jnp.full((rows,), 1.0, jnp.float32) * found["weight"],
    )


def gains(boosts: Boosts, first: int | jax.Array, size: int) -> jax.Array:
    """`[B, size]`: what is added to the scores of the tokens `first` to `first + size - 1`."""
    columns = boosts.items - first
    columns = jnp.where((columns >= 0) & (columns < size), columns, size)
    rows = jnp.arange(columns.shape[0])[:, None]
    none = jnp.zeros((columns.shape[0], size), jnp.float32)
    return boosts.weights[:, None] * jnp.log1p(
        none.at[rows, columns].add(boosts.ratios, mode="drop")
    )


def gains_at(boosts: Boosts, candidates: jax.Array) -> jax.Array:
    """`[B, C]`: what is added to the scores of the candidates `[B, C]` of each history.

    On a CPU, histories are processed one by one, so that the arrays compared fit into its cache.
    """
    ratios = jax.lax.platform_dependent(
        boosts.items, boosts.ratios, candidates, cpu=_one_by_one, default=jax.vmap(_sums)
    )
    return boosts.weights[:, None] * jnp.log1p(ratios)


def _one_by_one(items: jax.Array, ratios: jax.Array, candidates: jax.Array) -> jax.Array:
    found: jax.Array = jax.lax.map(lambda row: _sums(*row), (items, ratios, candidates))
    return found


def _sums(items: jax.Array, ratios: jax.Array, candidates: jax.Array) -> jax.Array:
    """`[C]`: for each candidate, the sum of the `ratios [E]` of the `items [E]` equal to it."""
    return jnp.where(candidates[:, None] == items, ratios, 0).sum(axis=-1)
