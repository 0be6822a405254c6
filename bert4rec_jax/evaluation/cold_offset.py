"""Cold offset: a number added to untrained items' scores to make them comparable with others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

OFFSETS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
HIGHEST = 30.0  # scores are logits: with a larger offset only cold items would be recommended
FINER = (0.25, 0.0625)  # finer step sizes; three steps are tried of each


@dataclass(frozen=True)
class OffsetTrial:
    """An offset, with validation NDCG@10 of trained (`warm`) and untrained (`cold`) targets."""

    offset: float
    warm: float
    cold: float


@dataclass(frozen=True)
class OffsetChoice:
    """The chosen offset, the share `kept` asked for, and all trials, by ascending offset."""

    chosen: OffsetTrial
    kept: float
    trials: tuple[OffsetTrial, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded to 6 places."""

        def values(trial: OffsetTrial) -> dict[str, float]:
            return {
                "offset": trial.offset,
                "warm_ndcg@10": round(trial.warm, 6),
                "cold_ndcg@10": round(trial.cold, 6),
            }

        trials = [values(trial) for trial in self.trials]
        return {**values(self.chosen), "warm_kept": self.kept, "trials": trials}


def choose_offset(evaluate: Callable[[float], tuple[float, float]], *, kept: float) -> OffsetChoice:
    """Choose the offset with the best NDCG@10 of untrained targets, within a loss limit for others.

    Trained targets have to keep the share `kept` of their best NDCG@10. The mean over all targets
    is not used, because it would weigh the two groups by how many cases of each the split has. The
    search goes in steps of 1, upwards as long as trained targets keep that share, because the scale
    of the scores is not known: it depends on covisitation and the temperature. Then it goes on in
    steps of 1/4 above the best offset, and of 1/16.

    Args:
      evaluate: maps an offset to NDCG@10 of trained and of untrained validation targets.
      kept: share of the highest NDCG@10 of trained targets, over all trials.
    """

    def tried(offsets: Iterable[float]) -> list[OffsetTrial]:
        return [OffsetTrial(offset, *evaluate(offset)) for offset in offsets]

    trials = tried(OFFSETS)
    while trials[-1].offset < HIGHEST and trials[-1].warm >= _least(trials, kept):
        trials += tried([trials[-1].offset + 1])
    for step in FINER:
        best = _best(trials, kept).offset
        trials += tried(best + number * step for number in (1, 2, 3))
    trials.sort(key=lambda trial: trial.offset)
    return OffsetChoice(_best(trials, kept), kept, tuple(trials))


def _best(trials: list[OffsetTrial], kept: float) -> OffsetTrial:
    """The trial with the best `cold` NDCG@10 among those whose `warm` NDCG@10 is high enough.

    Of equals, the offset closest to 0 wins, so the offset is 0 if no other one gains anything.
    """
    least = _least(trials, kept)
    return max(
        (trial for trial in trials if trial.warm >= least),
        key=lambda trial: (trial.cold, -abs(trial.offset)),
    )


def _least(trials: list[OffsetTrial], kept: float) -> float:
    return kept * max(trial.warm for trial in trials)
