"""Search: settings with the best validation NDCG@10, by a coordinate-wise search on a few cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from bert4rec_jax.data.split import Cases

Settings = TypeVar("Settings")

CLIMBS = 16
# The most cases on which settings are chosen, and the most scores that a ranking of them computes,
# as long as there are not too few cases for that.
MOST_CASES, MOST_SCORES, FEWEST_CASES = 10_000, 250_000_000, 2_000


def choosing(cases: Cases, items: int) -> Cases:
    """The validation cases on which settings are chosen, for a catalog of so many items.

    All cases, or where ranking them often would take long, a sample that is always the same.
    """
    most = min(MOST_CASES, max(FEWEST_CASES, MOST_SCORES // items))
    if len(cases) <= most:
        return cases
    return cases[np.random.default_rng(0).permutation(len(cases))[:most]]


@dataclass(frozen=True)
class Choice(Generic[Settings]):
    """The result of a search.

    Attributes:
      chosen: the best settings, or None if no settings are better than no correction at all.
      without: validation NDCG@10 without the correction.
      trials: all tried settings and their validation NDCG@10, in order.
    """

    chosen: Settings | None
    without: float
    trials: tuple[tuple[Settings, float], ...]

    @property
    def best(self) -> float:
        """Validation NDCG@10 of the choice: the highest, with or without the correction."""
        return max([self.without, *(value for _, value in self.trials)])

    def to_json(self, name: str) -> dict[str, Any]:
        """Plain values, metrics rounded to 6 places; the chosen settings have the key `name`."""
        return {
            name: None if self.chosen is None else asdict(self.chosen),  # type: ignore[call-overload]
            "ndcg@10_without": round(self.without, 6),
            "trials": [
                {**asdict(tried), "ndcg@10": round(value, 6)}  # type: ignore[call-overload]
                for tried, value in self.trials
            ],
        }


def search(
    first: Settings,
    evaluate: Callable[[Settings | None], float],
    *rounds: Callable[[Settings], Iterable[Settings]],
    neighbours: Callable[[Settings], Iterable[Settings]] | None = None,
) -> Choice[Settings]:
    """Search in rounds, each of which tries variants of the best settings so far; then climb.

    Of settings with equal NDCG@10, the earlier ones win.

    Args:
      first: the settings that the first round starts from.
      evaluate: maps settings (hashable), or None for no correction, to validation NDCG@10; called
        once per settings.
      rounds: functions from the best settings so far to the settings to try.
      neighbours: a last round that is repeated as long as it finds better settings, at most
        `CLIMBS` times; None for none.
    """
    trials: dict[Settings, float] = {}

    def best_of(candidates: Iterable[Settings]) -> Settings:
        for candidate in candidates:
            if candidate not in trials:
                trials[candidate] = evaluate(candidate)
        return max(trials, key=lambda tried: trials[tried])

    found = first
    for candidates in rounds:
        found = best_of(candidates(found))
    if neighbours is not None:
        for _ in range(CLIMBS):
            before, found = found, best_of(neighbours(found))
            if found == before:
                break
    without = evaluate(None)
    return Choice(found if trials[found] > without else None, without, tuple(trials.items()))
