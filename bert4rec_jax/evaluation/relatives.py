"""Relatives: the items that are like an item, and how much more often they follow it for that.

Two movies of the same people, or a movie and its sequel, go together even if nobody in the log has
watched both. How much more often than popularity says is learned from the pairs of items that share
a rare name (`Likeness.rare_names`). With the transitions c_ij of the skip-gram Markov chain, their
sum C_i, the popularity q_j and the cosine s_k of each kind k of content,

    c_ij ~ Poisson(C_i q_j exp(z_ij))        z_ij = w_0 + Σ_k w_k s_k(i, j)

The weights w are those of a Poisson regression with a ridge penalty, by Newton's method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.ranges import in_parts, within
from bert4rec_jax.data.split import train_counts
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.likeness import Likeness
from bert4rec_jax.evaluation.markov import transitions

RELATIVES = 64  # K, number of relatives kept per item
EVENTS = 50  # training events of an item that counts half as a relative
RIDGE = 1.0
_PAIRS_AT_ONCE = 1 << 20
_NUMBERS_AT_ONCE = 1 << 22  # of rows of content
_PAIRS_TO_FIT = 1 << 22
_STEPS = 50

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Relatives:
    """The most closely related items of each item that has training events.

    Attributes:
      items: `[V, K]` int32, those with the largest z_ij above 0; PAD if there are fewer than K.
      logs: `[V, K]` float64: z_ij, the logarithm of how much more often j follows i; 0 for PAD.
      shares: `[V, K]` float64: q_j, their shares of all training events; 0 for PAD.
      trust: `[V, K]` float64 in [0, 1): how much is left to content, `E / (E + n_j)` for n_j
        training events of j and E = `EVENTS`; 0 for PAD.
      weights: kind of content -> w_k.
    """

    items: npt.NDArray[np.int32]
    logs: Array
    shares: Array
    trust: Array
    weights: Mapping[str, float]

    @classmethod
    def of(
        cls,
        likeness: Likeness,
        store: SequenceStore,
        stop: npt.NDArray[np.int64],
        *,
        distance: int,
        k: int = RELATIVES,
    ) -> Relatives | None:
        """Learn from the rows `offsets[u]:stop[u]`; None if no two related items went together.

        Transitions span at most `distance` items.
        """
        events = train_counts(store, stop)
        seen = np.flatnonzero(events)
        pairs = _Pairs.of(likeness, seen)
        counts = transitions(store, stop, distance).tocsr()[seen][:, seen]
        shares = events[seen] / max(events.sum(), 1)
        weights = _learn(pairs, counts, shares)
        if weights is None:
            return None
        items = np.zeros((len(events), k), np.int32)
        logs = np.zeros((len(events), k))
        for part in in_parts(pairs.degrees, _PAIRS_AT_ONCE):
            i, j, cosines = pairs.among(np.arange(part.start, part.stop))
            z = (cosines @ weights[1:] + weights[0]).round(4)  # the same on any machine
            order = np.lexsort((j, -z, i))
            order = order[z[order] > 0]
            i, j, z = i[order], j[order], z[order]
            place = within(np.bincount(i - part.start, minlength=part.stop - part.start))
            kept = place < k
            items[seen[i[kept]], place[kept]] = seen[j[kept]]
            logs[seen[i[kept]], place[kept]] = z[kept]
        found = items > 0
        return cls(
            items,
            logs,
            np.where(found, events[items] / max(events.sum(), 1), 0),
            np.where(found, EVENTS / (EVENTS + events[items]), 0),
            dict(zip(pairs.rows, weights[1:].tolist())),
        )

    def excess(self, strength: float) -> Array:
        """`[V, K]`: e^(strength · trust · z) - 1, by which popularity is exceeded."""
        return np.expm1(np.minimum(strength * self.trust * self.logs, 20))


class _Pairs(NamedTuple):
    """The pairs of n items that share a rare name.

    Attributes:
      rare: `[n, m]`, see `Likeness.rare_names`.
      rows: see `Likeness.rows`.
      degrees: `[n]`, at least the number of pairs that each item is the first of.
    """

    rare: Any
    rows: Mapping[str, Any]
    degrees: npt.NDArray[np.int64]

    @classmethod
    def of(cls, likeness: Likeness, items: npt.NDArray[np.int64]) -> _Pairs:
        rare = likeness.rare_names(items)
        degrees = rare @ rare.sum(axis=0)
        return cls(rare, likeness.rows(items), degrees.astype(np.int64))

    def among(self, first: npt.NDArray[np.int64]) -> tuple[Any, Any, Array]:
        """`[p]` first items, which are some of `first`, `[p]` second items, `[p, kinds]` cosines.

        Ordered by the place of the first item in `first`, then by the second item.
        """
        shared = (self.rare[first] @ self.rare.T).tocsr()
        shared.sort_indices()
        i, j = np.repeat(first, np.diff(shared.indptr)), shared.indices.astype(np.int64)
        i, j = i[i != j], j[i != j]
        cosines = [_products(rows, i, j) for rows in self.rows.values()]
        return i, j, np.stack(cosines, axis=1) if cosines else np.zeros((len(i), 0))

    def sample(self) -> Iterator[tuple[Any, Any, Array]]:
        """Pairs to learn from: those of as many items, drawn at random, as are few enough."""
        order = np.random.default_rng(0).permutation(len(self.degrees))
        drawn = np.sort(order[np.cumsum(self.degrees[order]) <= _PAIRS_TO_FIT])
        for part in in_parts(self.degrees[drawn], _PAIRS_AT_ONCE):
            yield self.among(drawn[part])


def _products(rows: Any, i: npt.NDArray[np.int64], j: npt.NDArray[np.int64]) -> Array:
    """`[p]`: the products of the rows i and the rows j of a matrix, sparse or not.

    Computed for some pairs at a time: the rows of all would take gigabytes if they are embeddings.
    Summed in float64, so that rounded sums are the same on any machine.
    """
    found = np.zeros(len(i))
    at_once = 1 + _NUMBERS_AT_ONCE * rows.shape[0] // rows.size
    for start in range(0, len(i), at_once):
        part = slice(start, start + at_once)
        first, second = rows[i[part]], rows[j[part]]
        if isinstance(rows, np.ndarray):
            found[part] = np.einsum("pk,pk->p", first, second, dtype=np.float64)
        else:
            found[part] = first.multiply(second).sum(axis=1)
    return found


def _learn(pairs: _Pairs, counts: Any, shares: Array) -> Array | None:
    """The weights `w_0, w_1, ...`; None if there is nothing to learn from."""
    if not counts.nnz:
        return None
    followed = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    together, expected, design = [], [], []
    for i, j, cosines in pairs.sample():
        asked = followed[i] > 0
        i, j = i[asked], j[asked]
        together.append(_entries(counts, i, j))
        expected.append(followed[i] * shares[j])
        design.append(np.column_stack([np.ones(len(i)), cosines[asked]]))
    if not sum(x.sum() for x in together):
        return None
    return _poisson(np.concatenate(design), np.concatenate(together), np.concatenate(expected))


def _entries(counts: Any, i: npt.NDArray[np.int64], j: npt.NDArray[np.int64]) -> Array:
    """`[p]`: the entries `(i, j)` of a sparse square matrix, 0 where there is none."""
    entries = counts.tocoo()
    keys, values = entries.row.astype(np.int64) * counts.shape[0] + entries.col, entries.data
    order = np.argsort(keys)
    keys, values = keys[order], values[order].astype(np.float64)
    wanted = i * counts.shape[0] + j
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0.0)


def _poisson(x: Array, y: Array, expected: Array) -> Array:
    """`[k]` weights of `y ~ Poisson(expected · exp(x @ w))`, with a ridge penalty; `x` `[n, k]`.

    The first column is the constant. Rounded to 4 places, so that they are the same on any machine.
    """

    def objective(w: Array) -> float:
        z = x @ w
        return float(y @ z - expected @ np.exp(np.minimum(z, 30)) - RIDGE / 2 * (w @ w))

    w = np.zeros(x.shape[1])
    w[0] = np.log(y.sum() / expected.sum())
    reached = objective(w)
    for _ in range(_STEPS):
        mean = expected * np.exp(np.minimum(x @ w, 30))
        slope = x.T @ (y - mean) - RIDGE * w
        step = np.linalg.solve((x * mean[:, None]).T @ x + RIDGE * np.eye(len(w)), slope)
        while (found := objective(w + step)) < reached and np.abs(step).max() > 1e-6:
            step /= 2
        if found <= reached:
            break
        w, reached = w + step, found
    return w.round(4)
