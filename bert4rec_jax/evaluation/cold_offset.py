"""Cold offset: the one number that makes scores of untrained items comparable with all others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

OFFSETS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
HIGHEST = 30.0  # scores are logits: beyond this only cold items would be listed
FINER = (0.25, 0.0625)  # steps, three of each
KEPT = 0.97  # of the NDCG@10 that trained targets have where no untrained item is in the way


@dataclass(frozen=True)
class OffsetTrial:
    """An offset, and NDCG@10 on validation, of trained targets and of untrained ones."""

    offset: float
    warm: float
    cold: float


@dataclass(frozen=True)
class OffsetChoice:
    """The chosen offset, and what led to it; trials by rising offset."""

    chosen: OffsetTrial
    trials: tuple[OffsetTrial, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded to 6 places."""

        def values(trial: OffsetTrial) -> dict[str, float]:
            return {
                "offset": trial.offset,
                "warm_ndcg@10": round(trial.warm, 6),
                "cold_ndcg@10": round(trial.cold, 6),
            }

        return {**values(self.chosen), "trials": [values(trial) for trial in self.trials]}


def choose_offset(ask: Callable[[float], tuple[float, float]]) -> OffsetChoice:
    """The offset at which untrained targets fare best while trained ones keep `KEPT` of theirs.

    The mean over all targets would weigh the two by how many of each the split happens to ask.
    Searched in steps of 1, upwards for as long as trained targets bear it, then of a quarter above
    the best, then of a sixteenth. How far that is depends on the scale of the scores, which
    covisitation and a temperature stretch.

    Args:
      ask: from an offset to NDCG@10 of trained and of untrained validation targets.
    """

    def tried(offsets: Iterable[float]) -> list[OffsetTrial]:
        return [OffsetTrial(offset, *ask(offset)) for offset in offsets]

    trials = tried(OFFSETS)
    while trials[-1].offset < HIGHEST and trials[-1].warm >= _least(trials):
        trials += tried([trials[-1].offset + 1])
    for step in FINER:
        best = _best(trials).offset
        trials += tried(best + number * step for number in (1, 2, 3))
    trials.sort(key=lambda trial: trial.offset)
    return OffsetChoice(_best(trials), tuple(trials))


def _best(trials: list[OffsetTrial]) -> OffsetTrial:
    """The best for untrained targets of those that trained ones can bear; of equals the smallest,
    so that where no offset gains anything there is none."""
    least = _least(trials)
    return max(
        (trial for trial in trials if trial.warm >= least),
        key=lambda trial: (trial.cold, -abs(trial.offset)),
    )


def _least(trials: list[OffsetTrial]) -> float:
    return KEPT * max(trial.warm for trial in trials)
