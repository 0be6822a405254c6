"""Lift: raises items that often followed the last items of a history in other histories.

With counts c_ij of how often j followed i, smoothed towards the popularity q by μ, and the weight
d^k of the k-th last item h_k of a history (the skip-gram Markov chain of `evaluation.markov`),

    p(j | h) ∝ q_j + Σ_k d^k c_{h_k j} / (C_{h_k} + μ) / Σ_k d^k μ / (C_{h_k} + μ),   C_i = Σ_j c_ij

and `weight · log(p(j | h) / q_j)` is added to an item's score. The constant of proportionality is
dropped, as it is the same for all items. So items that never followed get 0, and only a few items
have to be computed. Nothing here is learned by gradient descent; it is added to scores after
training.

Items without a training event have no counts. This is no evidence against them, so p / q is taken
to be 1 for them, its mean over training events: with the dropped constant, they get

    weight · log(1 + Σ_k d^k C_{h_k} / (C_{h_k} + μ) / Σ_k d^k μ / (C_{h_k} + μ))

The last R items of a history are used, with K followers (and relatives) of each; E = R · K.
Relatives raise their items too (`Covisitation.collection`): q_j μ is then larger for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bert4rec_jax.data.catalog import PAD
from bert4rec_jax.sharding import Along

COLLECTION = "covisitation"  # variable collection of a model; made by `Covisitation.collection`
_LEAST = 1e-30


class Boosts(NamedTuple):
    """The items whose scores are raised for B histories.

    Attributes:
      items: `[B, E]` int32; if an item occurs several times, its ratios add up.
      ratios: `[B, E]` float32, at least 0: p / q - 1.
      weights: `[B]` float32 weight of the logarithm.
      expected: `[B]` float32, the ratio of items without counts.
      uncounted: `[V]` bool, items without counts.
    """

    items: Any
    ratios: Any
    weights: Any
    expected: Any
    uncounted: Any


# How boosts are sharded.
BOOSTS = Boosts(Along.ROWS, Along.ROWS, Along.ROWS, Along.ROWS, Along.NEITHER)


def boosts_of(found: Mapping[str, Any], histories: jax.Array) -> Boosts:
    """Compute the items to raise for each history, and their ratios.

    Args:
      found: the variable collection: `followers [V, K]` int32, `ratios [V, K]` float32
        (c_ij / (C_i + μ) / q_j), `covered [V]` and `uncovered [V]` float32 (C_i / (C_i + μ) and
        μ / (C_i + μ), which is no difference to 1, as float32 rounds that to 0), `decays [R]`
        float32, the scalar `weight`, and `uncounted [V]` bool. Bundles of earlier versions lack
        `uncovered`, and older ones `uncounted`.
      histories: `[B, S]` int tokens, oldest first, padded with PAD on the right.
    """
    decays = found["decays"]
    lengths = (histories != PAD).sum(axis=1, keepdims=True)
    back = lengths - 1 - jnp.arange(decays.shape[0])
    recent = jnp.take_along_axis(histories, jnp.maximum(back, 0), axis=1)
    weights = jnp.where(back >= 0, decays, 0)
    covered = found["covered"][recent]
    uncovered = found["uncovered"][recent] if "uncovered" in found else 1 - covered
    unseen = (weights * uncovered).sum(axis=1)
    shares = weights / jnp.maximum(unseen, _LEAST)[:, None]
    rows = histories.shape[0]
    uncounted = found.get("uncounted", jnp.zeros(found["covered"].shape, bool))
    return Boosts(
        found["followers"][recent].reshape(rows, -1),
        (shares[:, :, None] * found["ratios"][recent]).reshape(rows, -1),
        jnp.full((rows,), 1.0, jnp.float32) * found["weight"],
        (shares * covered).sum(axis=1),
        uncounted,
    )


def gains(boosts: Boosts, first: int | jax.Array, size: int) -> jax.Array:
    """`[B, size]`: what is added to the scores of the tokens `first` to `first + size - 1`."""
    columns = boosts.items - first
    columns = jnp.where((columns >= 0) & (columns < size), columns, size)
    rows = jnp.arange(columns.shape[0])[:, None]
    uncounted = jax.lax.dynamic_slice_in_dim(boosts.uncounted, first, size)
    ratios = jnp.where(uncounted, boosts.expected[:, None], 0)
    return boosts.weights[:, None] * jnp.log1p(
        ratios.at[rows, columns].add(boosts.ratios, mode="drop")
    )


def gains_at(boosts: Boosts, candidates: jax.Array) -> jax.Array:
    """`[B, C]`: what is added to the scores of the candidates `[B, C]` of each history.

    On a CPU, histories are processed one by one, so that the arrays compared fit into its cache.
    """
    ratios = jax.lax.platform_dependent(
        boosts.items, boosts.ratios, candidates, cpu=_one_by_one, default=jax.vmap(_sums)
    )
    ratios += jnp.where(boosts.uncounted[candidates], boosts.expected[:, None], 0)
    return boosts.weights[:, None] * jnp.log1p(ratios)


def _one_by_one(items: jax.Array, ratios: jax.Array, candidates: jax.Array) -> jax.Array:
    found: jax.Array = jax.lax.map(lambda row: _sums(*row), (items, ratios, candidates))
    return found


def _sums(items: jax.Array, ratios: jax.Array, candidates: jax.Array) -> jax.Array:
    """`[C]`: for each candidate, the sum of the `ratios [E]` of the `items [E]` equal to it."""
    return jnp.where(candidates[:, None] == items, ratios, 0).sum(axis=-1)
