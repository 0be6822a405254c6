"""Comparison: several models answer the same questions, and each is assessed beside the first."""

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


class Ask(Protocol):
    """A model that can be asked."""

    def __call__(self, cases: Cases, among: npt.NDArray[np.int32] | None = None, /) -> Ranking:
        """Answers to M cases, ranked in the whole catalog or among `[M, C]` tokens."""
        ...


@dataclass(frozen=True)
class Comparison:
    """What every model answered to every set of cases, and how good that was.

    Attributes:
      rankings: set of cases -> model -> answers.
      assessments: set of cases -> one per model.
      against_sampled: variant of the sampled protocol -> model -> metrics; empty if not asked for.
    """

    rankings: Mapping[str, Mapping[str, Ranking]]
    assessments: Mapping[str, list[Assessment]]
    against_sampled: Mapping[str, Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Each set of cases: model -> metrics; and `sampled`, if asked for."""
        found: dict[str, Any] = {
            name: {model.name: model.to_json() for model in models}
            for name, models in self.assessments.items()
        }
        if self.against_sampled:
            found["sampled"] = self.against_sampled
        return found


def compare(
    models: Mapping[str, Ask],
    sets: Mapping[str, Cases],
    store: SequenceStore,
    *,
    counts: npt.NDArray[np.int64],
    resamples: int,
    sampled_lists: Mapping[str, npt.NDArray[np.int32]],
    within: Mapping[str, npt.NDArray[np.int32]] = MappingProxyType({}),
) -> Comparison:
    """Ask every model every case.

    Args:
      models: name -> what to ask; the first one is compared with all others.
      sets: name -> cases, each set with at least one.
      store: the data.
      counts: `[V]` training interactions per token.
      resamples: of the bootstrap.
      sampled_lists: variant -> `[draws, M, C]` candidates of the first set; may be empty.
      within: set of cases -> the only tokens that its targets are ranked among.
    """
    rankings = {}
    for name, cases in sets.items():
        tokens = within.get(name)
        among = None if tokens is None else np.broadcast_to(tokens, (len(cases), len(tokens)))
        rankings[name] = {model: ask(cases, among) for model, ask in models.items()}
    assessments = {
        name: assess(answers, sets[name], store, counts=counts, resamples=resamples)
        for name, answers in rankings.items()
    }
    against_sampled = {
        variant: {
            model: sampled.average([ask(next(iter(sets.values())), one).ranks for one in lists])
            for model, ask in models.items()
        }
        for variant, lists in sampled_lists.items()
    }
    return Comparison(rankings, assessments, against_sampled)
