"""The input pipeline: turns the steps of a plan into batches, prefetched by Grain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.batch import Batch, gather
from bert4rec_jax.data.plan import EpochPlan, Plan
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.data.thumbs import to_thumbs


class StepToBatch:
    """Maps a step to this host's share of its batch; caches the plan of the current epoch."""

    def __init__(
        self,
        plan: Plan,
        store: SequenceStore,
        thumbs: tuple[float, float],
        *,
        host: int = 0,
        hosts: int = 1,
        with_users: bool = False,
    ) -> None:
        """For `thumbs` see `data.thumbs.to_thumbs`; `with_users` fills in `Batch.users`."""
        self._plan = plan
        self._store = store
        self._thumbs = thumbs
        self._host = host
        self._hosts = hosts
        self._with_users = with_users
        self._epoch: tuple[int, EpochPlan] | None = None

    def __call__(self, step: int) -> Batch:
        """This host's rows of step `step`, counted from the first step of training."""
        number = step // self._plan.steps_per_epoch
        cached = self._epoch
        if cached is None or cached[0] != number:
            cached = (number, self._plan.epoch(number))
            self._epoch = cached
        spans = self._plan.step(cached[1], step, host=self._host, hosts=self._hosts)
        users = None
        if self._with_users:  # of users with equal offsets, only the last one has rows
            users = np.searchsorted(self._store.offsets[:-1], spans.starts, side="right")
        return gather(
            spans,
            self._store.tokens,
            lambda rows: to_thumbs(self._store.ratings[rows], self._thumbs),
            self._store.timestamps,
            num_rows=self._plan.batch_size // self._hosts,
            max_length=self._plan.max_length,
            users=users,
        )

    def several(self, first: int, count: int) -> Batch:
        """The batches of `count` steps from `first` on: `[count, B, L]`, or `[B, L]` for one."""
        if count == 1:
            return self(first)
        columns: Any = zip(*(self(first + number) for number in range(count)))
        stacked: Any = (None if column[0] is None else np.stack(column) for column in columns)
        return Batch(*stacked)


def batches(step_to_batch: StepToBatch, strides: npt.NDArray[np.int64]) -> Iterator[Batch]:
    """The batches of strides, `[N, 2]` of (first step, steps), prefetched in a thread."""
    found = grain.MapDataset.source(strides).map(lambda stride: step_to_batch.several(*stride))
    return iter(found.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))
