"""ItemKNN: item-based nearest neighbours by cosine similarity of their users."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from bert4rec_jax.data.ranges import in_parts
from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.baselines import (
    Popular,
    Scores,
    Settings,
    Stop,
)
from bert4rec_jax.evaluation.histories import (
    decayed_histories,
    dense_if_small,
    product,
    training_rows,
)

_CELLS_AT_ONCE = 1 << 22  # at most 48 MiB per sparse block


@dataclass(frozen=True, eq=False)
class ItemKNN:
    """Scores item j by `Σ_k decay^k · sim(h_k, j)` over the k-th last items h_k of the history.

        sim(i, j) = n_ij / (√(n_i · n_j) + λ)

    is the cosine of the items' columns in the binary user-item matrix (n_i users watched i in
    training, n_ij watched both), shrunk by λ for items with few users (Sarwar et al., WWW 2001;
    shrinkage as in Bell and Koren, 2007). Each item keeps its `neighbours` most similar items, and
    all that tie with the last of them, so the result does not depend on the order of items. 1e-6
    times an item's popularity (its share of training interactions) is added, which orders items
    that are no neighbours of the history.

    Attributes:
      neighbours: number of similar items kept per item.
      shrinkage: λ, in users.
      decay: weight of an item relative to the next newer one, in [0, 1).
      similarity: `[V, V]`, dense if small; row i holds the neighbours of item i.
      popular: orders items that are no neighbours of the history.
    """

    neighbours: int
    shrinkage: float
    decay: float
    similarity: Any = field(repr=False)
    popular: Popular = field(repr=False)

    @property
    def name(self) -> str:
        """`item-knn`."""
        return "item-knn"

    @property
    def settings(self) -> Settings:
        """The hyper-parameters."""
        return {
            "neighbours": self.neighbours,
            "shrinkage": self.shrinkage,
            "decay": self.decay,
        }

    @classmethod
    def fit(
        cls, store: SequenceStore, stop: Stop, *, neighbours: int, shrinkage: float, decay: float
    ) -> ItemKNN:
        """Compute item similarities from the rows `offsets[u]:stop[u]`."""
        similarity = similarities(store, stop, neighbours=neighbours, shrinkage=shrinkage)
        return cls(
            neighbours, shrinkage, decay, dense_if_small(similarity), Popular.fit(store, stop)
        )

    def refit(self, store: SequenceStore, stop: Stop) -> ItemKNN:
        """See `Baseline`."""
        return self.fit(
            store,
            stop,
            neighbours=self.neighbours,
            shrinkage=self.shrinkage,
            decay=self.decay,
        )

    def scores(self, cases: Cases, store: SequenceStore) -> Scores:
        """`[M, V]` scores, at least 0."""
        scores: Scores = product(decayed_histories(cases, store, self.decay), self.similarity)
        scores += self.popular.tie_break()
        return scores


def similarities(store: SequenceStore, stop: Stop, *, neighbours: int, shrinkage: float) -> Any:
    """Sparse `[V, V]` float32: each item's nearest `neighbours`, by shrunk cosine.

    Rows are computed in blocks, so the full matrix never exists, unless `neighbours` keeps all of
    it.

    Raises:
      ValueError: `neighbours` is below 1, or the shrinkage is negative.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours is {neighbours}; expected at least 1")
    if shrinkage < 0:
        raise ValueError(f"shrinkage is {shrinkage}; expected at least 0")
    users, tokens = training_rows(store, stop)
    items = store.catalog.num_rows
    watched = sp.csr_array(
        (np.ones(len(users), np.float32), (users, tokens)), shape=(store.num_users, items)
    )
    watched.data[:] = 1  # an item watched twice is one entry
    by_item = watched.T.tocsr()
    watchers = np.diff(by_item.indptr).astype(np.int64)  # products of two exceed 32 bits
    # At most so many entries has an item's row: it may be similar to all items that its users
    # watched. In a large catalog these are few, so that a block has many items.
    most = np.minimum(by_item @ np.diff(watched.indptr), items).astype(np.int64)
    blocks = []
    for part in in_parts(most, _CELLS_AT_ONCE):
        similar = by_item[part] @ watched
        rows = part.start + np.repeat(np.arange(similar.shape[0]), np.diff(similar.indptr))
        norms = np.sqrt(watchers[rows] * watchers[similar.indices]) + shrinkage
        similar.data = np.where(rows == similar.indices, 0, similar.data / norms)
        _cut(similar, neighbours)
        similar.eliminate_zeros()
        blocks.append(similar.astype(np.float32))
    return sp.vstack(blocks, format="csr")


def _cut(similar: Any, neighbours: int) -> None:
    """Set entries below the `neighbours`-th largest of their row to 0, in place."""
    for row in np.flatnonzero(np.diff(similar.indptr) > neighbours):
        entries = similar.data[similar.indptr[row] : similar.indptr[row + 1]]
        last = np.partition(entries, len(entries) - neighbours)[len(entries) - neighbours]
        entries[entries < last] = 0
