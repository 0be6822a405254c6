"""Own history: what someone chose before they may choose again. A baseline where that counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.baselines import Popular, Scores, Settings, Stop
from bert4rec_jax.evaluation.histories import decayed_histories


@dataclass(frozen=True, eq=False)
class OwnHistory:
    """Scores item j by `Σ decay^k` over the places k (the last is 0) where the history holds it.

    Near 1 this is how often someone chose the item, near 0 how lately. A small share of an item's
    popularity is added, so that items that the history does not hold are ordered too.

    Attributes:
      decay: weight of a place against the one after it, in (0, 1).
      popular: orders all other items.
    """

    decay: float
    popular: Popular = field(repr=False)

    @property
    def name(self) -> str:
        """`own-history`."""
        return "own-history"

    @property
    def settings(self) -> Settings:
        """The decay."""
        return {"decay": self.decay}

    @classmethod
    def fit(cls, store: SequenceStore, stop: Stop, *, decay: float) -> OwnHistory:
        """Count the rows `offsets[u]:stop[u]` for the popularity; the rest comes from a case."""
        return cls(decay, Popular.fit(store, stop))

    def refit(self, store: SequenceStore, stop: Stop) -> OwnHistory:
        """See `Baseline`."""
        return self.fit(store, stop, decay=self.decay)

    def scores(self, cases: Cases, store: SequenceStore) -> Scores:
        """`[M, V]`, at least 0."""
        own: Scores = decayed_histories(cases, store, self.decay).toarray()
        counts = self.popular.counts
        return own + (_LITTLE / counts.sum() * counts).astype(own.dtype)


_LITTLE = 1e-3  # below what the last place of a history weighs that is looked at
