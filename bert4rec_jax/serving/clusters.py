"""Clusters: groups of item vectors, of which only a few are searched for a user's best items.

An inverted file (Jegou et al., "Product Quantization for Nearest Neighbor Search", 2011, without
the quantization) for inner products: k-means over `x_i = [v_i, b_i]`; a query `q = [h, 1]` searches
the `probes` groups whose centres c have the largest inner product with it. This choice takes an
item's score to be that of its centre, so k-means minimises the mean squared error over users,

    E_q (q . (x - c))^2 = (x - c)^T M (x - c)      M = E_q q q^T

which is the squared distance in the metric M instead of the Euclidean one: directions that users
share, such as popularity, count more. Groups are cut into buckets of equal capacity, so every shape
is static.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.ranges import within
from bert4rec_jax.evaluation.ranks import largest

_PER_CENTRE = 64  # items in the sample for k-means, per centre
_ROUNDS = 8
_AT_ONCE = 1 << 22  # products of items and centres computed at once: they fit into a cache


@dataclass(frozen=True)
class Clusters:
    """P buckets of up to C items each.

    Attributes:
      centres: `[P, D + 1]` float32, the mean of each bucket's `[v, b]`.
      vectors: `[P, C, D + 1]` float32.
      tokens: `[P, C]` int32, PAD where a bucket is not full.
    """

    centres: jax.Array
    vectors: jax.Array
    tokens: jax.Array

    @classmethod
    def of(
        cls,
        vectors: npt.NDArray[np.float32],
        bias: npt.NDArray[np.float32],
        listed: npt.NDArray[np.bool_],
        users: npt.NDArray[np.float32],
        *,
        seed: int = 0,
    ) -> Clusters:
        """Group the listed items; a bucket holds about the square root of their number.

        Args:
          vectors: `[V, D]`.
          bias: `[V]`.
          listed: `[V]` bool, the items that can be found; at least one.
          users: `[N, D]` user vectors h; the metric fits best if they resemble those of requests.
          seed: of the sample of items for k-means, and of its first centres.
        """
        tokens = np.flatnonzero(listed).astype(np.int32)
        points = np.concatenate([vectors[tokens], bias[tokens, None]], axis=1)
        root = _root_of_metric(users)
        count = max(1, round(len(tokens) ** 0.5))
        generator = np.random.default_rng(seed)
        sample = points[generator.permutation(len(points))[: count * _PER_CENTRE]]
        centres = jnp.asarray(sample[:count])
        for _ in range(_ROUNDS):
            nearest = _nearest(sample, centres, root)
            sums = np.zeros_like(centres)
            np.add.at(sums, nearest, sample)
            sizes = np.bincount(nearest, minlength=count)[:, None]
            centres = jnp.where(sizes > 0, sums / np.maximum(sizes, 1), centres)
        group = _nearest(points, centres, root)
        order = np.argsort(group, kind="stable")
        sizes = np.bincount(group, minlength=count)
        capacity = -(-len(tokens) // count)
        pieces = -(-sizes // capacity)  # buckets of each group
        number = within(sizes)
        bucket = np.repeat(np.cumsum(pieces) - pieces, sizes) + number // capacity
        place = bucket * capacity + number % capacity
        buckets = int(pieces.sum())
        laid = np.zeros((buckets * capacity, points.shape[1]), np.float32)
        names = np.zeros(buckets * capacity, np.int32)
        laid[place], names[place] = points[order], tokens[order]
        full = np.bincount(bucket, minlength=buckets)[:, None]
        laid = laid.reshape(buckets, capacity, -1)
        return cls(
            jnp.asarray(laid.sum(1) / full),
            jnp.asarray(laid),
            jnp.asarray(names.reshape(buckets, capacity)),
        )

    def best(
        self, hidden: jax.Array, excluded: jax.Array, *, top: int, probes: int
    ) -> tuple[jax.Array, jax.Array]:
        """As `ranks.best_items`, but only among the `probes` buckets that fit each row best.

        Args:
          hidden: `[B, D]` float32.
          excluded: `[B, S]` int tokens, padded with PAD.
          top: length k of the lists.
          probes: buckets searched per row; searching all of them is exact.
        """
        probes = min(probes, len(self.tokens))
        return _best(
            self.centres, self.vectors, self.tokens, hidden, excluded, top=top, probes=probes
        )


@partial(jax.jit, static_argnames=("top", "probes"))
def _best(
    centres: jax.Array,
    vectors: jax.Array,
    tokens: jax.Array,
    hidden: jax.Array,
    excluded: jax.Array,
    *,
    top: int,
    probes: int,
) -> tuple[jax.Array, jax.Array]:
    rows = hidden.shape[0]
    queries = jnp.concatenate([hidden, jnp.ones((rows, 1), hidden.dtype)], axis=1)
    _, chosen = jax.lax.top_k(queries @ centres.T, probes)
    scores = jnp.einsum("BD,BPCD->BPC", queries, vectors[chosen], precision="highest")
    scores = scores.reshape(rows, -1)
    names = tokens[chosen].reshape(rows, -1)
    scores = jnp.where(names == 0, -jnp.inf, scores)
    # Take as many more items as may be excluded, and compare only these with `excluded`.
    wanted = min(top + excluded.shape[1], scores.shape[1])
    scores, where = largest(scores, wanted)
    names = jnp.take_along_axis(names, where, axis=1)
    barred = (names[:, :, None] == excluded[:, None, :]).any(-1)
    scores, where = jax.lax.top_k(jnp.where(barred, -jnp.inf, scores), min(top, wanted))
    names = jnp.take_along_axis(names, where, axis=1)
    short = ((0, 0), (0, top - scores.shape[1]))
    scores = jnp.pad(scores, short, constant_values=-jnp.inf)
    return scores, jnp.where(scores > -jnp.inf, jnp.pad(names, short), 0)


def _root_of_metric(users: npt.NDArray[np.float32]) -> jax.Array:
    """`[D + 1, D + 1]` R with `R R^T = M`: plain distances of rows `x R` are those in metric M."""
    queries = np.concatenate([users, np.ones((len(users), 1), np.float32)], axis=1)
    values, directions = np.linalg.eigh(queries.T @ queries / len(queries))
    return jnp.asarray(directions * np.sqrt(np.maximum(values, 0)))


def _nearest(
    points: npt.NDArray[np.float32], centres: jax.Array, root: jax.Array
) -> npt.NDArray[np.int64]:
    """The number of the nearest centre of each point, `[N]`."""
    size = max(1, _AT_ONCE // len(centres))
    found = [_assign(points[i : i + size], centres, root) for i in range(0, len(points), size)]
    return np.concatenate([np.asarray(x) for x in found])


@jax.jit
def _assign(points: jax.Array, centres: jax.Array, root: jax.Array) -> jax.Array:
    centres = centres @ root
    nearness = 2 * (points @ root) @ centres.T - (centres**2).sum(1)
    return largest(nearness, 1)[1][:, 0]
