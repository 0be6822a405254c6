"""Markov: predicts the next item from the last ones by smoothed transition counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.baselines import (
    Popular,
    RecentPopular,
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


@dataclass(frozen=True, eq=False)
class Markov:
    """Scores item j by `Σ_k decay^k · p(j | h_k)` over the k-th last items h_k of the history.

    Transitions go from earlier to later items only. `c_ij = Σ 1/d` sums over all pairs of an item i
    and a later item j in a training history whose distance d is at most `distance`, so distant
    pairs count less, as in a skip-gram. The transition probabilities are

        p(j | i) = (c_ij + μ·q_j) / (Σ_j c_ij + μ)

    with Dirichlet smoothing (Zhai and Lafferty, SIGIR 2001) of strength μ towards a popularity q.
    With μ = 0 this is the row-normalised count matrix; a row without counts then scores 0.

    `distance=1, decay=0` is the first-order Markov chain.

    Attributes:
      distance: largest distance at which a pair counts, in items.
      decay: weight of an item relative to the next newer one, in [0, 1).
      smoothing: μ, in transitions.
      prior: the popularity q; its scores are normalised to sum to 1.
      counts: `[V, V]`, c, dense if small.
      totals: `[V]`, row sums of c.
    """

    distance: int
    decay: float
    smoothing: float
    prior: Popular | RecentPopular
    counts: Any = field(repr=False)
    totals: npt.NDArray[np.float64] = field(repr=False)

    def __post_init__(self) -> None:
        if self.distance < 1:
            raise ValueError(f"distance is {self.distance}; a transition spans at least 1 item")
        if self.smoothing < 0:
            raise ValueError(f"smoothing is {self.smoothing}; expected at least 0")

    @property
    def name(self) -> str:
        """`markov-1` or `skip-gram-markov`, with suffix `-recent` if the prior is recent."""
        order = "markov-1" if self.distance == 1 else "skip-gram-markov"
        return order if isinstance(self.prior, Popular) else f"{order}-recent"

    @property
    def settings(self) -> Settings:
        """The hyper-parameters, including those of the prior."""
        own = {"distance": self.distance, "decay": self.decay, "smoothing": self.smoothing}
        return {**own, **{f"prior-{key}": value for key, value in self.prior.settings.items()}}

    @classmethod
    def fit(
        cls,
        store: SequenceStore,
        stop: Stop,
        *,
        distance: int,
        decay: float,
        smoothing: float,
        prior: Popular | RecentPopular,
    ) -> Markov:
        """Count the transitions in the rows `offsets[u]:stop[u]`; `prior` is already fitted."""
        counts = transitions(store, stop, distance)
        totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
        return cls(distance, decay, smoothing, prior, dense_if_small(counts), totals)

    def refit(self, store: SequenceStore, stop: Stop) -> Markov:
        """See `Baseline`; the prior is refitted as well."""
        return self.fit(
            store,
            stop,
            distance=self.distance,
            decay=self.decay,
            smoothing=self.smoothing,
            prior=self.prior.refit(store, stop),
        )

    def scores(self, cases: Cases, store: SequenceStore) -> Scores:
        """`[M, V]` scores, at least 0."""
        weights = decayed_histories(cases, store, self.decay)
        # Dividing the few weights of a history is equivalent to normalising the rows of the matrix.
        norms = self.totals + self.smoothing
        weights.data /= np.where(norms > 0, norms, 1)[weights.indices].astype(np.float32)
        scores: Scores = product(weights, self.counts)
        if self.smoothing > 0:
            prior = self.prior.scores(cases, store)
            prior /= prior.sum(1, keepdims=True)
            scores += np.float32(self.smoothing) * weights.sum(axis=1)[:, None] * prior
        return scores


def transitions(store: SequenceStore, stop: Stop, distance: int) -> Any:
    """Sparse `[V, V]` float32: `Σ 1/d` over pairs (earlier, later) at distance d ≤ `distance`.

    With `distance` 2, the training history a b c counts a→b: 1, b→c: 1 and a→c: 1/2.
    """
    users, tokens = training_rows(store, stop)
    shape = (store.catalog.num_rows,) * 2
    counts = sp.csr_array(shape, dtype=np.float32)
    for d in range(1, min(distance, max(len(users) - 1, 0)) + 1):
        together = users[d:] == users[:-d]
        pairs = tokens[:-d][together], tokens[d:][together]
        weights = np.full(len(pairs[0]), 1 / d, np.float32)
        # One distance at a time: the pairs of all distances of a large log may not fit in memory.
        counts = counts + sp.coo_array((weights, pairs), shape).tocsr()
    return counts
