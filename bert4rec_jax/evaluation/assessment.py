"""Assessment: rankings of several models over the same cases, as figures to compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.bootstrap import SEED, Interval, differences, intervals
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
    """One model over one set of cases.

    Attributes:
      name: of the model.
      metrics: means over the cases, `coverage@10`, `novelty@10` and `cold_exposure@10` among them.
      intervals: 95 % bootstrap intervals over users of HR, NDCG and MRR.
      lead: the first model's advantage over this one, paired; empty for the first itself.
      groups: metrics by popularity of the target.
    """

    name: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    lead: Mapping[str, Interval]
    groups: Mapping[str, Mapping[str, float]]

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded to 6 places; `lead` and its intervals are empty for the first."""

        def ends(found: Mapping[str, Interval]) -> dict[str, list[float]]:
            return {name: [round(i.low, 6), round(i.high, 6)] for name, i in found.items()}

        return {
            **{name: round(value, 6) for name, value in self.metrics.items()},
            "interval_95": ends(self.intervals),
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
    """Figures of every model over the same cases; the first model is compared with all others.

    Args:
      rankings: model -> its answers to `cases`, at least one case.
      cases: what was asked.
      store: the data.
      counts: `[V]` training interactions per token.
      resamples: of the bootstrap over users; all models see the same.
    """
    ids = store.user_ids()
    users = [ids[user] for user in cases.users]  # one may be asked several questions
    targets = store.tokens[cases.rows]
    items = len(store.catalog)
    first: Mapping[str, npt.NDArray[np.float64]] | None = None
    found = []
    for name, ranking in rankings.items():
        each = contributions(ranking.ranks)
        lead = {}
        if first is None:
            first = each
        else:
            rng = np.random.default_rng(SEED)
            lead = differences(first, each, rng=rng, resamples=resamples, users=users)
        metrics = {
            **summary(ranking.ranks),
            "coverage@10": coverage(ranking.top, items),
            "cold_exposure@10": cold_exposure(ranking.top, counts),
        }
        if metrics["coverage@10"]:  # ids alone have nothing to list among cold items
            metrics["novelty@10"] = novelty(ranking.top, counts, items)
        rng = np.random.default_rng(SEED)
        own = intervals(each, rng=rng, resamples=resamples, users=users)
        groups = by_popularity(ranking.ranks, targets, counts)
        found.append(Assessment(name, metrics, own, lead, groups))
    return found
