"""Trend: what is watched when training ends, as a correction of the items' biases.

A model learns how often each item was chosen over the whole log, and is asked what comes after it.
Where the shares q of items have moved on from those p that it learnt, Bayes' rule moves its scores
by `log q_i - log p_i` (label shift; Saerens et al., Neural Computation 2002). What a model knows of
a history says part of this already, so both terms have weights, which validation chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.batch import SECONDS_PER_DAY
from bert4rec_jax.data.split import in_training
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.search import Choice, search

DAYS = (1, 3, 7, 14, 30)
SMOOTHINGS = (10.0, 50.0, 200.0)
WEIGHTS = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Trend:
    """How much recent counts move scores.

    Attributes:
      days: training's last days, in which an item's events count as recent.
      smoothing: events by the shares of the whole training that are added to the recent ones.
      weight: of the recent shares' logarithm.
      against: of the logarithm of an item's training events, which is taken off.
    """

    days: int = 7
    smoothing: float = 50.0
    weight: float = 1.0
    against: float = 0.5

    def shift(self, store: SequenceStore, stop: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """`[V]`, what the rows `offsets[u]:stop[u]` add to each item's bias; 0 without an event."""
        rows = in_training(store, stop)
        tokens, times = store.tokens[rows], store.timestamps[rows]
        recent = times > times.max() - self.days * SECONDS_PER_DAY
        last = np.bincount(tokens[recent], minlength=store.catalog.num_rows)
        every = np.bincount(tokens, minlength=store.catalog.num_rows)
        seen = every > 0
        now = last[seen] + self.smoothing * every[seen] / every.sum()
        moved = self.weight * np.log(now) - self.against * np.log(every[seen])
        shift = np.zeros(len(every), np.float32)
        shift[seen] = moved - np.average(moved, weights=every[seen])
        return shift


def choose_trend(ask: Callable[[Trend | None], float]) -> Choice[Trend]:
    """First the days, then the smoothing, then both weights together: some 20 questions.

    Args:
      ask: from a trend, or none, to NDCG@10 on validation.
    """
    return search(
        Trend(),
        ask,
        lambda found: (replace(found, days=days) for days in DAYS),
        lambda found: (replace(found, smoothing=smoothing) for smoothing in SMOOTHINGS),
        lambda found: (
            replace(found, weight=weight, against=against)
            for weight in WEIGHTS
            for against in (0.0, *WEIGHTS)
            if against <= weight
        ),
    )
