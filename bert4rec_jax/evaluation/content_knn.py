"""ContentKNN: items with similar content; it can also score items without any interaction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.baselines import Popular, Scores, Settings, Stop
from bert4rec_jax.evaluation.histories import decayed_histories


@dataclass(frozen=True, eq=False)
class ContentKNN:
    """Scores item j by `Σ_k decay^k · cos(c_{h_k}, c_j)` over the k-th last items h_k of a history.

    So items are ranked by their cosine with the user's profile, the decayed sum of the content of
    the history. Content of length 0 has similarity 0 to everything. As in `ItemKNN`, 1e-6 times an
    item's popularity is added.

    Attributes:
      decay: weight of an item relative to the next newer one, in [0, 1).
      centred: whether the mean content of all items is subtracted before taking cosines.
      directions: `[V, F]` content as unit vectors, 0 where there is none.
      popular: the popularity that is added.
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
        """Normalise `[V, F]` content; the mean for `centred` is over items with content."""
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
        """`[M, V]` scores."""
        profiles = decayed_histories(cases, store, self.decay) @ self.directions
        scores: Scores = profiles @ self.directions.T
        scores += self.popular.tie_break()
        return scores
