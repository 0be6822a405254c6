"""Assessment: metrics of several models over the same cases, with intervals and paired leads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.bootstrap import SEED, Interval, beside_first
from bert4rec_jax.evaluation.evaluator import Ranking
from bert4rec_jax.evaluation.metrics import (
    by_popularity,
    cold_exposure,
    contributions,
    coverage,
    novelty,
    summary,
)


@dataclass(frozen=True)
class Assessment:
    """The metrics of one model over one set of cases.

    Attributes:
      name: name of the model.
      metrics: means over the cases, and `coverage@10`, `novelty@10` and `cold_exposure@10`.
      intervals: 95 % bootstrap intervals of HR, NDCG and MRR.
      lead: paired differences, first model minus this one; empty for the first model.
      groups: metrics by popularity of the target.
      drawn: what the resamples of the intervals draw: `users`, or `items`, see `assess`.
    """

    name: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    lead: Mapping[str, Interval]
    groups: Mapping[str, Mapping[str, float]]
    drawn: str = "users"

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded to 6 places; the first model's `lead` and intervals are empty."""

        def ends(found: Mapping[str, Interval]) -> dict[str, list[float]]:
            return {name: [round(i.low, 6), round(i.high, 6)] for name, i in found.items()}

        return {
            **{name: round(value, 6) for name, value in self.metrics.items()},
            "interval_95": ends(self.intervals),
            "interval_over": self.drawn,
            "lead": {name: round(i.mean, 6) for name, i in self.lead.items()},
            "lead_interval_95": ends(self.lead),
            "by_popularity": {
                group: {name: round(value, 6) for name, value in values.items()}
                for group, values in self.groups.items()
            },
        }


def assess(
    rankings: Mapping[str, Ranking],
    cases: Cases,
    store: SequenceStore,
    *,
    counts: npt.NDArray[np.int64],
    resamples: int,
) -> list[Assessment]:
    """Assess every model over the same cases, and compare the first model with all others.

    Intervals are over users: they say how much a metric would vary with other users. Where no
    target has a training event, the question is what would happen with other new items, and a few
    items are the targets of most cases. There the resamples draw target items, each with all of its
    cases, if there are at least two.

    Args:
      rankings: model name -> its ranking of `cases`.
      cases: the cases; at least one.
      store: the data.
      counts: `[V]` training interactions per token.
      resamples: number of bootstrap resamples, which are the same for all models.
    """
    targets = store.tokens[cases.rows]
    if counts[targets].any() or len(np.unique(targets)) < 2:
        ids = store.user_ids()  # a user may have several cases
        drawn, units = "users", [ids[user] for user in cases.users]
    else:
        drawn, units = "items", targets.tolist()
    items = len(store.catalog)
    compared = beside_first(
        (contributions(ranking.ranks) for ranking in rankings.values()),
        rng=np.random.default_rng(SEED),
        resamples=resamples,
        users=units,
    )
    found = []
    for (name, ranking), (own, lead) in zip(rankings.items(), compared):
        metrics = {
            **summary(ranking.ranks),
            "coverage@10": coverage(ranking.top, items),
            "cold_exposure@10": cold_exposure(ranking.top, counts),
        }
        if metrics["coverage@10"]:  # 0 if only cold items are ranked and the model has no content
            metrics["novelty@10"] = novelty(ranking.top, counts, items)
        groups = by_popularity(ranking.ranks, targets, counts)
        found.append(Assessment(name, metrics, own, lead, groups, drawn))
    return found
