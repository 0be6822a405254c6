"""Worker: computes shards of a batch job, alone in this process or as one of many in others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa

from bert4rec_jax.checks import fit_types, require
from bert4rec_jax.data.catalog import FIRST_ITEM
from bert4rec_jax.errors import UserError
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.filters import EVERYTHING, Filters
from bert4rec_jax.serving.ragged import text_ranges
from bert4rec_jax.serving.ranking import Lists
from bert4rec_jax.serving.request_file import RequestFile
from bert4rec_jax.serving.requests import USER
from bert4rec_jax.serving.scorer import Scorer
from bert4rec_jax.serving.shards import Shard, Shards
from bert4rec_jax.serving.times import RequestTime, moment_of


@dataclass(frozen=True)
class Options:
    """Options of a batch job.

    Attributes:
      top: the largest length of a list; None for all candidates, or for `job.CATALOG_TOP` where the
        whole catalog is ranked.
      keep_seen: also list items of the history; None: if the model was trained to repeat items.
      batch_size: histories computed at once by one device.
      shard_rows: requests per file of the output; so many are held in memory.
      filters: which items may be listed.
      request_time: time of the requests that have none of their own, for a model that reads times;
        None: when its training data ends, or the history, if that is later.
    """

    top: int | None = None
    keep_seen: bool | None = None
    batch_size: int = 256
    shard_rows: int = 16_384
    filters: Filters = EVERYTHING
    request_time: RequestTime | None = None

    def __post_init__(self) -> None:
        fit_types(self)
        for name in ("top", "batch_size", "shard_rows"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "at least 1")
        if self.request_time is not None:
            moment_of(self.request_time)

    @property
    def asked_at(self) -> int | None:
        """`request_time` in seconds since 1970."""
        return None if self.request_time is None else moment_of(self.request_time)


@dataclass(frozen=True)
class Plan:
    """Everything that a worker needs; it can be sent to another machine.

    Attributes:
      bundle: the bundle's folder.
      fingerprint: the bundle's fingerprint.
      requests: the requests to answer.
      shards: the output.
      options: see `Options`.
    """

    bundle: Path
    fingerprint: str
    requests: RequestFile
    shards: Shards
    options: Options


class Worker:
    """Makes shards of a job. A shard does not depend on which worker makes it, nor in what order.

    Args:
      plan: the job's plan.
      bundle: the opened bundle of the plan; None to open it when the first shard is made.
    """

    def __init__(self, plan: Plan, bundle: Bundle | None = None) -> None:
        self._plan = plan
        self._bundle = bundle

    def make(self, numbers: range) -> Iterator[Shard]:
        """Write the shards with these numbers, and yield each one once it is written.

        Raises:
          UserError: requests or bundle cannot be read here, or a shard cannot be written.
        """
        plan, options = self._plan, self._plan.options
        scorer = self._scorer
        ids = pa.array(scorer.catalog.item_ids, pa.string())
        by = f"JAX {jax.__version__}, {scorer.ranker.functions.devices[0].device_kind}"
        for number, table in plan.requests.shards(options.shard_rows, numbers.start):
            where = plan.requests.where(number * options.shard_rows)
            requests = scorer.reader.read(table, where, request_time=options.asked_at)
            lists = scorer.lists(requests, top=options.top, keep_seen=options.keep_seen)
            made = Shard(number, len(table), Counter({**requests.counts, **lists.counts}), by)
            plan.shards.write(made, list(_answers(table[USER], lists, ids)))
            yield made
            if number == numbers[-1]:
                return

    @cached_property
    def _scorer(self) -> Scorer:
        bundle = self._bundle or Bundle.open(self._plan.bundle)
        if bundle.fingerprint != self._plan.fingerprint:
            raise UserError(
                f"{bundle.path} is another bundle on this machine than where the job was started; "
                "use a folder that all machines share"
            )
        options = self._plan.options
        return Scorer(bundle, batch_size=options.batch_size, filters=options.filters)


def _answers(users: pa.ChunkedArray, lists: Lists, ids: pa.Array) -> Iterator[pa.Table]:
    for first, stop in text_ranges(lists.items.lengths, ids):
        bounds = lists.items.offsets[first : stop + 1]
        rows = slice(int(bounds[0]), int(bounds[-1]))
        offsets = pa.array((bounds - bounds[0]).astype(np.int32))
        items = ids.take(pa.array(lists.items.values[rows] - FIRST_ITEM))
        yield pa.table(
            {
                USER: users.slice(first, stop - first),
                "item_ids": pa.ListArray.from_arrays(offsets, items),
                "scores": pa.ListArray.from_arrays(offsets, pa.array(lists.scores[rows])),
            }
        )
