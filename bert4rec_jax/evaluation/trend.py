"""Trend: corrects item biases by the popularity of items in the last days of training.

A model learns how popular each item was over the whole training log, but has to predict what comes
after it. If the items' shares have changed from p to q since then, Bayes' rule adds `log q_i -
log p_i` to its scores (label shift; Saerens et al., Neural Computation 2002). A model's scores
reflect part of this change already, through the histories. So each term has a weight, chosen on
validation.
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
    """How much recent popularity changes scores.

    Attributes:
      days: number of last days of training whose interactions count as recent.
      smoothing: pseudo-interactions added to the recent counts, split between items by their shares
        of all training interactions.
      weight: weight of the logarithm of the smoothed recent counts, which is added.
      against: weight of the logarithm of the counts over all of training, which is subtracted.
    """

    days: int = 7
    smoothing: float = 50.0
    weight: float = 1.0
    against: float = 0.5

    def shift(self, store: SequenceStore, stop: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """`[V]`: what is added to item biases, from the training rows `offsets[u]:stop[u]`.

        Its mean over training interactions is 0; items without an interaction get 0.
        """
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


def choose_trend(evaluate: Callable[[Trend | None], float]) -> Choice[Trend]:
    """Search the days, then the smoothing, then both weights jointly; about 20 calls of `evaluate`.

    Args:
      evaluate: maps a trend, or None for no correction, to validation NDCG@10.
    """
    return search(
        Trend(),
        evaluate,
        lambda found: (replace(found, days=days) for days in DAYS),
        lambda found: (replace(found, smoothing=smoothing) for smoothing in SMOOTHINGS),
        lambda found: (
            replace(found, weight=weight, against=against)
            for weight in WEIGHTS
            for against in (0.0, *WEIGHTS)
            if against <= weight
        ),
    )
