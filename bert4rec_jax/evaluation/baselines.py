"""Baselines: scorers without learned parameters. The protocol, and two popularity baselines.

A baseline is a frozen dataclass of hyper-parameters and of statistics of the training rows
`offsets[u]:stop[u]`. Its scores depend only on these and on the history and time of a case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.batch import SECONDS_PER_DAY
from bert4rec_jax.data.split import Cases, in_training, train_counts
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError

Stop = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Settings = Mapping[str, str | int | float]
Until = Literal["end of training", "last event", "request"]


class Baseline(Protocol):
    """A fitted scorer."""

    @property
    def name(self) -> str:
        """The name in results tables."""
        ...

    @property
    def settings(self) -> Settings:
        """The hyper-parameters."""
        ...

    def refit(self, store: SequenceStore, stop: Stop) -> Baseline:
        """The same hyper-parameters, fitted on the rows `offsets[u]:stop[u]`."""
        ...

    def scores(self, cases: Cases, store: SequenceStore) -> Scores:
        """`[M, V]` finite scores for M cases; a case's history is everything before its target."""
        ...


@dataclass(frozen=True, eq=False)
class Popular:
    """Scores an item by its number of training interactions, the same for every user.

    Attributes:
      counts: `[V]` training interactions per token.
    """

    counts: npt.NDArray[np.int64] = field(repr=False)

    @property
    def name(self) -> str:
        """`popular`."""
        return "popular"

    @property
    def settings(self) -> Settings:
        """There are no hyper-parameters."""
        return {}

    @classmethod
    def fit(cls, store: SequenceStore, stop: Stop) -> Popular:
        """Count the interactions in the rows `offsets[u]:stop[u]`."""
        return cls(train_counts(store, stop))

    def refit(self, store: SequenceStore, stop: Stop) -> Popular:
        """See `Baseline`."""
        return self.fit(store, stop)

    def scores(self, cases: Cases, store: SequenceStore) -> Scores:
        """`[M, V]`: the counts, repeated for each case."""
        return np.tile(self.counts.astype(np.float32), (len(cases), 1))

    def tie_break(self, total: float = 1e-6) -> Scores:
        """`[V]`: shares of all training interactions times `total`, to order equal scores."""
        return (total / self.counts.sum() * self.counts).astype(np.float32)


@dataclass(frozen=True, eq=False)
class RecentPopular:
    """Scores an item by its training interactions in a window of `days` that ends at `until`.

    The window `(end - days, end]` ends with the last training interaction, with the user's own last
    event before the target, or one second before the target itself (`request`, for settings where
    the time of the request is known). It holds training interactions only, so it never ends later
    than training does. Items without an interaction in the window rank below those with one, by
    their share of all training interactions.

    Under leave-one-out, training ends with the latest training interaction of all users. So `end of
    training` may count what other users watched after the target's time. This is a property of the
    protocol, and holds for trained models as well.

    Attributes:
      days: width of the window.
      until: where the window ends.
      times: `[N]` timestamps of the training interactions, ascending.
      tokens: `[N]` tokens of the training interactions, in the same order.
      counts: `[V]` training interactions per token.
    """

    days: int
    until: Until
    times: npt.NDArray[np.int64] = field(repr=False)
    tokens: npt.NDArray[np.int32] = field(repr=False)
    counts: npt.NDArray[np.int64] = field(repr=False)

    def __post_init__(self) -> None:
        if self.days < 1:
            raise ValueError(f"days is {self.days}; a window is at least one day")

    @property
    def name(self) -> str:
        """`recent-popular`, or `recent-popular-at-request`."""
        return "recent-popular" + "-at-request" * (self.until == "request")

    @property
    def settings(self) -> Settings:
        """Width and end of the window."""
        return {"days": self.days, "until": self.until}

    @classmethod
    def fit(cls, store: SequenceStore, stop: Stop, *, days: int, until: Until) -> RecentPopular:
        """Sort the rows `offsets[u]:stop[u]` by time.

        Raises:
          UserError: the log has no timestamps.
        """
        if not store.timed:
            raise UserError(
                "recent popularity needs timestamps, and this log has none; leave it out"
            )
        trained = in_training(store, stop)
        order = np.argsort(store.timestamps[trained], kind="stable")
        return cls(
            days=days,
            until=until,
            times=store.timestamps[trained][order],
            tokens=store.tokens[trained][order],
            counts=train_counts(store, stop),
        )

    def refit(self, store: SequenceStore, stop: Stop) -> RecentPopular:
        """See `Baseline`."""
        return self.fit(store, stop, days=self.days, until=self.until)

    def scores(self, cases: Cases, store: SequenceStore) -> Scores:
        """`[M, V]`: interactions in the window, plus the share of all training interactions."""
        ends = np.full(len(cases), self.times[-1])
        if self.until == "last event":
            ends = np.minimum(ends, store.timestamps[cases.rows - 1])
        if self.until == "request":
            ends = np.minimum(ends, store.timestamps[cases.rows] - 1)
        distinct, which = np.unique(ends, return_inverse=True)
        first = np.searchsorted(self.times, distinct - self.days * SECONDS_PER_DAY, "right")
        stop = np.searchsorted(self.times, distinct, "right")
        share = self.counts / self.counts.sum()
        windows = np.empty((len(distinct), len(share)), np.float32)
        for window, start, end in zip(windows, first, stop):
            window[:] = np.bincount(self.tokens[start:end], minlength=len(share)) + share
        return windows[which]
