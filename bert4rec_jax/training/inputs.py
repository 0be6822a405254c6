"""Inputs: what a model is trained on, and the constants of its items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.sharding import Along, put
from bert4rec_jax.training.parts import Sizes

Features = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The training histories, with optional item and user features.

    Attributes:
      store: the histories.
      thumbs: rating thresholds.
      content: `[V, F]` item features, or None.
      first_day: `[V]` day of each item's first interaction, for a model that reads times, or None.
      released: `[V]` day of each item's release, NaN if unknown, for such a model, or None.
      users: `[U + 1, G]` user features, those of user u in row u + 1; row 0 is for unknown users;
        or None.
    """

    store: SequenceStore
    thumbs: tuple[float, float]
    content: Features | None = None
    first_day: Features | None = None
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


def catalog_constants(
    mesh: Mesh,
    content: Features | None,
    trained: npt.NDArray[np.bool_],
    offset: float = 0.0,
    *,
    first_day: Features | None = None,
    released: Features | None = None,
) -> dict[str, Any]:
    """The model's variable collection `catalog`, sharded over the mesh; empty if not needed.

    Args:
      mesh: the devices.
      content: `[V, F]` item features, or None.
      trained: `[V]` bool, the items the model is trained on.
      offset: added to the bias of all other items.
      first_day: `[V]` day of each item's first interaction, for a model that reads times, or None.
      released: `[V]` day of each item's release, NaN if unknown, or None. The ages of items count
        from it where it is known, else from the first interaction; an item without both has none.
    """
    constants: dict[str, Any] = {}
    if content is not None:
        constants["item_table"] = {
            "features": put(mesh, Along.ITEMS, content),
            "trained": put(mesh, Along.ITEMS, trained),
            "offset": put(mesh, Along.NEITHER, np.float32(offset)),
        }
    if first_day is not None:
        days = np.where(trained, first_day, 0)
        if released is not None:
            days = np.where(np.isfinite(released), released, days)
        first = put(mesh, Along.ITEMS, days.astype(np.float32))
        constants["request_time"] = {"first_day": first}
    return constants
