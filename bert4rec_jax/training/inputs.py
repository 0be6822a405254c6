"""Inputs: what a model is trained on, and the constants of its items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from bert4rec_jax.data.batch import SECONDS_PER_DAY
from bert4rec_jax.data.plan import Plan
from bert4rec_jax.data.split import first_days, in_training
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.sharding import Along, put
from bert4rec_jax.training.coverage import trained_items
from bert4rec_jax.training.parts import Sizes

Features = npt.NDArray[np.float32]
_EARLIEST = 1e-6  # days: of logs whose times begin at 0, which as a day says that none is known


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The training histories, with optional item and user features.

    Attributes:
      store: the histories.
      thumbs: rating thresholds.
      content: `[V, F]` item features, or None.
      times: whether the model reads times.
      released: `[V]` day of each item's release, in days since 1970, NaN where it is not known; for
        a model that reads times, or None.
      users: `[U + 1, G]` user features, those of user u in row u + 1; row 0 is for unknown users;
        or None.
    """

    store: SequenceStore
    thumbs: tuple[float, float]
    content: Features | None = None
    times: bool = False
    released: Features | None = None
    users: Features | None = None

    @property
    def known_of_items(self) -> Features | None:
        """`[V, ...]`: all that is known of the items besides their events; None if nothing is."""
        if self.content is None or self.released is None:
            return self.content
        return np.concatenate([self.content, self.released[:, None]], axis=1)

    @property
    def sizes(self) -> Sizes:
        """The sizes that parameter shapes depend on."""
        return Sizes(
            self.store.catalog.num_rows,
            content_dim=0 if self.content is None else self.content.shape[1],
            user_dim=0 if self.users is None else self.users.shape[1],
        )


@dataclass(frozen=True, eq=False)
class Dates:
    """What a model that reads times knows of the time it was trained on.

    Attributes:
      first_day: `[V]` float32, the day from which an item's age counts, in days since 1970: that of
        its release, or of its first training event where that is not known. An item that was
        released before the log counts as released when it begins. 0 where neither is known.
      begin: when the log begins, in seconds since 1970.
      until: when the training events end.
      dated: whether the day of release of any item is known.
    """

    first_day: Features
    begin: int
    until: int
    dated: bool


@dataclass(frozen=True, eq=False)
class Trained:
    """What a model was trained on.

    Attributes:
      items: `[V]` bool.
      dates: for a model that reads times; or None.
    """

    items: npt.NDArray[np.bool_]
    dates: Dates | None = None


def trained_on(data: TrainingData, plan: Plan, stop: npt.NDArray[np.int64]) -> Trained:
    """What training by a plan on the rows `offsets[u]:stop[u]` is on."""
    store = data.store
    items = trained_items(plan, store)
    if not data.times:
        return Trained(items)
    begin = int(store.timestamps.min())
    until = int(store.timestamps[in_training(store, stop)].max())
    days = np.where(items, np.maximum(first_days(store, stop), _EARLIEST), 0)
    if data.released is not None:
        released = np.maximum(data.released, max(begin / SECONDS_PER_DAY, _EARLIEST))
        days = np.where(np.isfinite(released), released, days)
    dated = data.released is not None and bool(np.isfinite(data.released).any())
    return Trained(items, Dates(days.astype(np.float32), begin, until, dated))


def catalog_constants(
    mesh: Mesh, content: Features | None, trained: Trained, offset: float = 0.0
) -> dict[str, Any]:
    """The model's variable collection `catalog`, sharded over the mesh; empty if not needed.

    Args:
      mesh: the devices.
      content: `[V, F]` item features, or None.
      trained: what the model is trained on.
      offset: added to the bias of all items that it is not trained on.
    """
    constants: dict[str, Any] = {}
    if content is not None:
        constants["item_table"] = {
            "features": put(mesh, Along.ITEMS, content),
            "trained": put(mesh, Along.ITEMS, trained.items),
            "offset": put(mesh, Along.NEITHER, np.float32(offset)),
        }
    if trained.dates is not None:
        begin_day, last_day = (
            put(mesh, Along.NEITHER, np.float32(max(seconds / SECONDS_PER_DAY, _EARLIEST)))
            for seconds in (trained.dates.begin, trained.dates.until)
        )
        constants["request_time"] = {
            "first_day": put(mesh, Along.ITEMS, trained.dates.first_day),
            "begin_day": begin_day,
            "last_day": last_day,
            "dated": put(mesh, Along.NEITHER, np.bool_(trained.dates.dated)),
        }
    return constants
