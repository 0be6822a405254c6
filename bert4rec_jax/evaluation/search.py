"""Search: settings chosen on validation, a few coordinates at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Choice(Generic[Settings]):
    """The best settings, None where none are better than nothing, and all that was tried.

    Attributes:
      chosen: see above.
      without: NDCG@10 on validation without any.
      trials: settings and their NDCG@10, in order.
    """

    chosen: Settings | None
    without: float
    trials: tuple[tuple[Settings, float], ...]

    @property
    def best(self) -> float:
        """NDCG@10 on validation with what was chosen."""
        return max([self.without, *(value for _, value in self.trials)])

    def to_json(self, name: str) -> dict[str, Any]:
        """Plain values, metrics rounded to 6 places; the choice under its name."""
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
    ask: Callable[[Settings | None], float],
    *rounds: Callable[[Settings], Iterable[Settings]],
) -> Choice[Settings]:
    """Begin with `first`; each round tries some around the best so far. Of equals the earlier wins.

    Args:
      first: where to begin.
      ask: from settings (hashable), or none, to NDCG@10 on validation; nothing is
        asked twice.
      rounds: from the best settings so far to those to try.
    """
    trials: dict[Settings, float] = {}
    found = first
    for candidates in rounds:
        for candidate in candidates(found):
            if candidate not in trials:
                trials[candidate] = ask(candidate)
        found = max(trials, key=lambda tried: trials[tried])
    without = ask(None)
    return Choice(found if trials[found] > without else None, without, tuple(trials.items()))
