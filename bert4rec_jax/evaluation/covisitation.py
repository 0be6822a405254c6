"""Covisitation: corrects a trained model's scores by transition counts. See `evaluation.lift`.

On a sparse log, counts remember pairs of items that a model smooths over, and a model uses the
whole history, which counts do not; together they rank better than either. Language models are
interpolated with n-grams for the same reason. The weight of the counts is chosen on validation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.ranges import in_parts, within
from bert4rec_jax.data.split import train_counts
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.markov import transitions
from bert4rec_jax.evaluation.relatives import Relatives
from bert4rec_jax.evaluation.search import Choice, search

DISTANCE = 9  # as in the skip-gram Markov baseline
FOLLOWERS = 64  # K, number of most frequent followers kept per item
RECENT = 16  # R, number of last items of a history that are used
DECAYS = (0.6, 0.75)
SMOOTHINGS = (20.0, 50.0, 100.0, 200.0)
DENSE = ((0.45, 400.0), (0.3, 800.0), (0.3, 1600.0))  # decay and smoothing for dense logs
STRENGTHS = (1.0, 2.0, 3.0, 4.0)
WEIGHTS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
POPULARITIES = (0.0, 0.25, 0.5)
FINER = ((0.8, 1.0, 1.25), (-0.125, 0.0, 0.125))  # factors of the weight; added to the popularity
_PAIRS_AT_ONCE = 1 << 22  # about 250 MiB while they are sorted


@dataclass(frozen=True)
class Covisitation:
    """How much the counts change the model's scores.

    Attributes:
      decay: weight of an item of a history relative to the next newer one.
      smoothing: μ, in transitions.
      weight: weight of the logarithm of the lift; the model's scores have weight 1.
      popularity: how much of the logarithm of an item's popularity is added to that of its lift. At
        1 the sum is the logarithm of the Markov chain's probability.
      relatives: how strongly counts are smoothed towards items of like content; 0 for not at all.
    """

    decay: float = 0.6
    smoothing: float = 50.0
    weight: float = 1.0
    popularity: float = 0.25
    relatives: float = 0.0

    def shift(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """`[V]`: the popularity term added to item biases, from `[V]` training interactions.

        Its mean over training interactions is 0; items without an interaction get 0.
        """
        seen = counts > 0
        shift = np.zeros(len(counts), np.float32)
        logs = self.weight * self.popularity * np.log(counts[seen])
        shift[seen] = logs - np.average(logs, weights=counts[seen])
        return shift

    def collection(
        self, followers: Followers, max_length: int, relatives: Relatives | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """The variable collection that `evaluation.lift` reads, for a model of L positions.

        Without `relatives`, counts are smoothed towards popularity alone.
        """
        norms = followers.totals + self.smoothing
        items, ratios = followers.items, followers.lifted / norms[:, None]
        covered, uncovered = followers.totals / norms, self.smoothing / norms
        if relatives is not None and self.relatives:
            excess = uncovered[:, None] * relatives.excess(self.relatives)
            items = np.concatenate([items, relatives.items], axis=1)
            ratios = np.concatenate([ratios, excess], axis=1)
            covered = covered + (relatives.shares * excess).sum(axis=1)
        recent = min(RECENT, max_length - 1)
        return {
            "followers": items,
            "ratios": ratios.astype(np.float32),
            "covered": covered.astype(np.float32),
            "uncovered": uncovered.astype(np.float32),
            "decays": np.power(np.float32(self.decay), np.arange(recent), dtype=np.float32),
            "weight": np.array(self.weight, np.float32),
            "uncounted": followers.uncounted,
        }


@dataclass(frozen=True, eq=False)
class Followers:
    """The items that most often followed each item in the training histories.

    Attributes:
      items: `[V, K]` int32, the most frequent followers; PAD if there are fewer than K.
      lifted: `[V, K]` float64: c_ij / q_j, the follower's count over its share of all training
        interactions; 0 for PAD.
      totals: `[V]` float64: C_i, the sum of the counts of all followers.
      uncounted: `[V]` bool: items without a training event.
    """

    items: npt.NDArray[np.int32]
    lifted: npt.NDArray[np.float64]
    totals: npt.NDArray[np.float64]
    uncounted: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, store: SequenceStore, stop: npt.NDArray[np.int64], k: int = FOLLOWERS) -> Followers:
        """Count transitions in the rows `offsets[u]:stop[u]`; of equal counts, lower tokens win."""
        counts = transitions(store, stop, DISTANCE).tocsr()
        events = train_counts(store, stop)
        shares = events / max(events.sum(), 1)
        items = np.zeros((counts.shape[0], k), np.int32)
        lifted = np.zeros((counts.shape[0], k))
        sizes = np.diff(counts.indptr)
        for part in in_parts(sizes, _PAIRS_AT_ONCE):
            pairs = slice(counts.indptr[part.start], counts.indptr[part.stop])
            followers, times = counts.indices[pairs], counts.data[pairs]
            rows = np.repeat(np.arange(part.start, part.stop), sizes[part])
            order = np.lexsort((followers, -times, rows))
            place = within(sizes[part])  # rows are sorted already
            kept = place < k
            chosen = followers[order][kept]
            items[rows[kept], place[kept]] = chosen
            lifted[rows[kept], place[kept]] = times[order][kept] / shares[chosen]
        return cls(
            items,
            lifted,
            np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel(),
            store.catalog.is_item() & (events == 0),
        )


def choose_covisitation(
    evaluate: Callable[[Covisitation | None], float], *, related: bool = False
) -> Choice[Covisitation]:
    """Search `weight` and `popularity` jointly, then the others, then finer weights; then climb.

    The climb goes beyond the grids, in single steps, as long as that gains, at most `search.CLIMBS`
    times. All this takes about 40 to 150 calls of `evaluate`.

    Args:
      evaluate: maps settings, or None for no correction, to validation NDCG@10.
      related: whether `relatives` is searched too.
    """

    def weights(found: Covisitation) -> list[Covisitation]:
        return [
            replace(found, weight=weight, popularity=popularity)
            for weight in WEIGHTS
            for popularity in POPULARITIES
        ]

    def counts(found: Covisitation) -> list[Covisitation]:
        return [
            replace(found, decay=decay, smoothing=smoothing)
            for decay, smoothing in (*product(DECAYS, SMOOTHINGS), *DENSE)
        ]

    def finer(found: Covisitation) -> list[Covisitation]:
        times, added = FINER
        return [
            replace(found, weight=found.weight * factor, popularity=found.popularity + more)
            for factor in times
            for more in added
            if found.popularity + more >= 0
        ]

    def alike(found: Covisitation) -> list[Covisitation]:
        return [replace(found, relatives=strength) for strength in STRENGTHS if related]

    def neighbours(found: Covisitation) -> list[Covisitation]:
        up, down = (round(found.weight * step, 4) for step in (1.25, 0.8))
        slower, faster = (round(found.decay * step, 4) for step in (4 / 3, 0.75))
        return [
            replace(found, smoothing=found.smoothing * 2),
            replace(found, smoothing=found.smoothing / 2),
            replace(found, decay=min(slower, 0.95)),
            replace(found, decay=faster),
            replace(found, weight=up),
            replace(found, weight=down),
            replace(found, popularity=found.popularity + 0.125),
            replace(found, popularity=max(found.popularity - 0.125, 0.0)),
            # Each step of only one of these two may be a loss: towards the Markov chain alone,
            replace(found, weight=found.weight * 2, popularity=found.popularity + 0.5),
            # and towards more of counts that are surer.
            replace(found, weight=found.weight * 2, smoothing=found.smoothing * 4),
            *(
                replace(found, relatives=max(found.relatives + step, 0.0))
                for step in (1.0, -1.0)
                if related
            ),
        ]

    return search(Covisitation(), evaluate, weights, counts, finer, alike, neighbours=neighbours)
