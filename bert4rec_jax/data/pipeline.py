"""The input pipeline: steps of a plan to batches, prefetched by Grain."""

from __future__ import annotations

from collections.abc import Iterator

import grain
import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.batch import SECONDS_PER_DAY, Batch, gather
from bert4rec_jax.data.plan import EpochPlan, Plan
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.data.thumbs import to_thumbs
from bert4rec_jax.errors import UserError


class StepToBatch:
    """Maps a step to this host's share of its batch; keeps the plan of the epoch at hand."""

    def __init__(
        self,
        plan: Plan,
        store: SequenceStore,
        thumbs: tuple[float, float],
        *,
        half_life: float | None = None,
        host: int = 0,
        hosts: int = 1,
    ) -> None:
        """See `Plan`, `data.thumbs.to_thumbs` and `recency_weights`.

        Raises:
          UserError: a half-life for a log without times.
        """
        if half_life is not None and not store.timed:
            raise UserError(
                f"masking.half_life is {half_life}, but {store.path} has no timestamps; prepare "
                "the log with its column of times, or leave the half-life out"
            )
        self._plan = plan
        self._store = store
        self._thumbs = thumbs
        self._half_life = half_life
        newest = store.timestamps[plan.stops[plan.stops > plan.starts] - 1]
        self._end = int(newest.max()) if len(newest) else 0
        self._host = host
        self._hosts = hosts
        self._epoch: tuple[int, EpochPlan] | None = None

    def __call__(self, step: int) -> Batch:
        """The rows of step `step`, counted from the first step of training."""
        number = step // self._plan.steps_per_epoch
        cached = self._epoch
        if cached is None or cached[0] != number:
            cached = (number, self._plan.epoch(number))
            self._epoch = cached
        spans = self._plan.step(cached[1], step, host=self._host, hosts=self._hosts)
        return gather(
            spans,
            self._store.tokens,
            lambda rows: to_thumbs(self._store.ratings[rows], self._thumbs),
            self._weights,
            self._store.timestamps,
            num_rows=self._plan.batch_size // self._hosts,
            max_length=self._plan.max_length,
        )

    def _weights(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        if self._half_life is None:
            return np.ones(len(rows), np.float32)
        return recency_weights(self._end - self._store.timestamps[rows], self._half_life)


def recency_weights(age: npt.NDArray[np.int64], half_life: float) -> npt.NDArray[np.float32]:
    """`2^(-age / half_life)`, at least 2^-20: what an event counts in the loss.

    Args:
      age: seconds before the newest training event.
      half_life: in days.
    """
    return np.exp2(-np.minimum(age / (SECONDS_PER_DAY * half_life), 20)).astype(np.float32)


def batches(step_to_batch: StepToBatch, *, start: int, stop: int) -> Iterator[Batch]:
    """The batches of steps `start .. stop - 1`, gathered ahead of time in a thread."""
    steps = grain.MapDataset.range(start, stop).map(step_to_batch)
    return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))
