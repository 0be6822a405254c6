"""Comparison: ranks the same cases with several models and compares each with the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation import sampled
from bert4rec_jax.evaluation.assessment import Assessment, assess
from bert4rec_jax.evaluation.evaluator import Ranking


class Ranker(Protocol):
    """A function that ranks cases with one model."""

    def __call__(self, cases: Cases, among: npt.NDArray[np.int32] | None = None, /) -> Ranking:
        """Rank the targets of M cases in the whole catalog, or among `[M, C]` candidate tokens."""
        ...


@dataclass(frozen=True)
class Comparison:
    """The rankings and metrics of every model for every set of cases.

    Attributes:
      rankings: set of cases -> model -> ranking.
      assessments: set of cases -> one assessment per model.
      against_sampled: variant of the sampled protocol -> model -> metrics; empty if not requested.
    """

    rankings: Mapping[str, Mapping[str, Ranking]]
    assessments: Mapping[str, list[Assessment]]
    against_sampled: Mapping[str, Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """For each set of cases: model -> metrics; and `sampled`, if requested."""
        found: dict[str, Any] = {
            name: {model.name: model.to_json() for model in models}
            for name, models in self.assessments.items()
        }
        if self.against_sampled:
            found["sampled"] = self.against_sampled
        return found


def compare(
    models: Mapping[str, Ranker],
    sets: Mapping[str, Cases],
    store: SequenceStore,
    *,
    counts: npt.NDArray[np.int64],
    resamples: int,
    sampled_lists: Mapping[str, npt.NDArray[np.int32]],
    within: Mapping[str, npt.NDArray[np.int32]] = MappingProxyType({}),
) -> Comparison:
    """Rank all sets of cases with every model and assess the rankings.

    Args:
      models: name -> model; the first one is compared with all others.
      sets: name -> cases; at least one case per set.
      store: the data.
      counts: `[V]` training interactions per token.
      resamples: number of bootstrap resamples.
      sampled_lists: variant -> `[draws, M, C]` candidates for the first set; may be empty.
      within: set of cases -> the only tokens to rank; the whole catalog for sets not in it.
    """
    rankings = {}
    for name, cases in sets.items():
        tokens = within.get(name)
        among = None if tokens is None else np.broadcast_to(tokens, (len(cases), len(tokens)))
        rankings[name] = {model: rank(cases, among) for model, rank in models.items()}
    assessments = {
        name: assess(answers, sets[name], store, counts=counts, resamples=resamples)
        for name, answers in rankings.items()
    }
    against_sampled = {
        variant: {
            model: sampled.average([rank(next(iter(sets.values())), one).ranks for one in lists])
            for model, rank in models.items()
        }
        for variant, lists in sampled_lists.items()
    }
    return Comparison(rankings, assessments, against_sampled)
