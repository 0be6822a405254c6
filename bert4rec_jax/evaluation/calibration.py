"""Calibration: the one number that makes scores of untrained items comparable with all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OFFSETS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
FINER = (-0.5, -0.25, 0.25, 0.5)


@dataclass(frozen=True)
class Trial:
    """An offset, and NDCG@10 on validation: of trained targets, untrained ones, and the mean."""

    offset: float
    warm: float
    cold: float

    @property
    def ndcg(self) -> float:
        """What is chosen by: each kind of target counts for half."""
        return (self.warm + self.cold) / 2


@dataclass(frozen=True)
class Calibration:
    """The best offset, and what led to it."""

    chosen: Trial
    trials: tuple[Trial, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded to 6 places; trials by rising offset."""

        def values(trial: Trial) -> dict[str, float]:
            return {
                "offset": trial.offset,
                "warm_ndcg@10": round(trial.warm, 6),
                "cold_ndcg@10": round(trial.cold, 6),
            }

        trials = sorted(self.trials, key=lambda trial: trial.offset)
        return {**values(self.chosen), "trials": [values(trial) for trial in trials]}


def calibrate(ask: Callable[[float], tuple[float, float]]) -> Calibration:
    """Search the offset with the best mean of both NDCG@10, first coarsely, then around the best.

    Args:
      ask: from an offset to NDCG@10 of trained and of untrained validation targets.
    """

    def tried(offset: float) -> Trial:
        return Trial(offset, *ask(offset))

    coarse = [tried(offset) for offset in OFFSETS]
    middle = _best(coarse).offset
    trials = (*coarse, *(tried(middle + step) for step in FINER))
    return Calibration(_best(trials), trials)


def _best(trials: Any) -> Trial:
    """The highest mean; of equals the offset closest to 0."""
    found: Trial = max(trials, key=lambda trial: (trial.ndcg, -abs(trial.offset)))
    return found
