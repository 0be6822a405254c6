"""ContentKNN: items that are alike in their content; it knows an item that nobody has watched."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.baselines import Popular, Scores, Settings, Stop
from bert4rec_jax.evaluation.histories import decayed_histories

_TIE_BREAK = 1e-6


@dataclass(frozen=True, eq=False)
class ContentKNN:
    """Scores item j by `Σ_k decay^k · cos(c_{h_k}, c_j)` over the k-th last items h_k of a history.

    So the list is that of the cosine between an item and the user's profile, the decayed sum of
    what was watched. Content of length 0 is like nothing. A millionth of an item's popularity is
    added, as in `ItemKNN`.

    Attributes:
      decay: weight of an item against the one after it, in [0, 1).
      centred: whether cosines are about the mean of the items' content.
      directions: `[V, F]` content as unit vectors, 0 where there is none.
      popular: orders what is equally alike.
    """

    decay: float
    centred: bool
    directions: npt.NDArray[np.float32] = field(repr=False)
    popular: Popular = field(repr=False)

    @property
    def name(self) -> str:
        """`content-knn`."""
        return "content-knn"

    @property
    def settings(self) -> Settings:
        """The hyper-parameters."""
        return {"decay": self.decay, "centred": self.centred}

    @classmethod
    def fit(
        cls,
        store: SequenceStore,
        stop: Stop,
        content: npt.NDArray[np.float32],
        *,
        decay: float,
        centred: bool,
    ) -> ContentKNN:
        """Take the directions of `[V, F]` content; the mean is that of items with content."""
        informed = (content != 0).any(1)
        if centred:
            content = np.where(informed[:, None], content - content[informed].mean(0), 0)
        lengths = np.linalg.norm(content, axis=1, keepdims=True)
        directions = (content / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        return cls(decay, centred, directions, Popular.fit(store, stop))

    def refit(self, store: SequenceStore, stop: Stop) -> ContentKNN:
        """See `Baseline`."""
        return replace(self, popular=Popular.fit(store, stop))

    def scores(self, cases: Cases, store: SequenceStore) -> Scores:
        """`[M, V]`."""
        profiles = decayed_histories(cases, store, self.decay) @ self.directions
        scores: Scores = profiles @ self.directions.T
        scores += (_TIE_BREAK / self.popular.counts.sum() * self.popular.counts).astype(np.float32)
        return scores
