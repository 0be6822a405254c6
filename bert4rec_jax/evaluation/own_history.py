"""Own history: a baseline that recommends what the user chose before, if items can be repeated."""

from __future__ import annotations

from dataclasses import dataclass, field

from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.baselines import Popular, Scores, Settings, Stop
from bert4rec_jax.evaluation.histories import decayed_histories


@dataclass(frozen=True, eq=False)
class OwnHistory:
    """Scores item j by `Σ decay^k` over the positions k (the last is 0) of j in the history.

    With a decay near 1 this is how often the user chose the item, near 0 how recently. 0.001 times
    an item's share of training interactions is added, to order items that are not in the history.

    Attributes:
      decay: weight of a position relative to the next newer one, in (0, 1).
      popular: orders items that are not in the history.
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
        """Fit the popularity on the rows `offsets[u]:stop[u]`; nothing else is fitted."""
        return cls(decay, Popular.fit(store, stop))

    def refit(self, store: SequenceStore, stop: Stop) -> OwnHistory:
        """See `Baseline`."""
        return self.fit(store, stop, decay=self.decay)

    def scores(self, cases: Cases, store: SequenceStore) -> Scores:
        """`[M, V]` scores, at least 0."""
        own: Scores = decayed_histories(cases, store, self.decay).toarray()
        return own + self.popular.tie_break(_LITTLE)


_LITTLE = 1e-3  # not above the smallest weight of a history's items, see `decayed_histories`
