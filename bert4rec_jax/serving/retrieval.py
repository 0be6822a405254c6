"""Retrieval: finds the best items of a large catalog, by scanning it or by searching clusters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.lift import BOOSTS, Boosts
from bert4rec_jax.evaluation.ranks import best_by_vectors
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.clusters import Clusters
from bert4rec_jax.serving.functions import Array, Functions, More
from bert4rec_jax.sharding import Along, items_mesh, place, put

CHUNK = 65_536  # items scored at once, per device
_LARGEST_BATCH = 16  # histories whose clusters of items are gathered at once
_USERS = 1024  # user vectors from which the metric of clusters is computed


def retrieval(
    bundle: Bundle,
    largest_batch: int,
    devices: Sequence[jax.Device] | None,
    listed: npt.NDArray[np.bool_],
    probes: int,
) -> Functions:
    """The functions of a retriever: `Nearby` with probes, else `Scan` for a large catalog."""
    if probes:
        return Nearby(bundle, largest_batch, devices, listed, probes=probes)
    kind = Scan if bundle.catalog.num_rows > CHUNK else Functions
    return kind(bundle, largest_batch, devices, listed)


def users_of_one_item(
    functions: Functions, listed: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """`[N, D]` user vectors of N histories that consist of one listed item; N is at most 1,024."""
    tokens = np.flatnonzero(listed).astype(np.int32)
    drawn = np.random.default_rng(0).permutation(tokens)[:_USERS, None]
    size = functions.largest_batch
    parts = [drawn[i : i + size] for i in range(0, len(drawn), size)]
    return np.concatenate(
        [np.asarray(functions.encode(x, np.zeros(x.shape, np.int8)))[: len(x)] for x in parts]
    )


class Scan(Functions):
    """`Functions` that shard the item vectors over all devices and scan them in chunks.

    Histories are encoded on the first device only, because a user tower is small.

    Args:
      bundle, largest_batch, devices, listed: as for `Functions`.
    """

    def __init__(
        self,
        bundle: Bundle,
        largest_batch: int,
        devices: Sequence[jax.Device] | None = None,
        listed: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        every = tuple(devices or jax.local_devices())
        super().__init__(bundle, largest_batch, every[:1], listed)
        self._mesh = items_mesh(every, self.vectors.shape[0])
        known = bundle.known if listed is None else listed
        self._catalog = tuple(
            put(self._mesh, Along.ITEMS, x) for x in (self.vectors, self.bias, known)
        )

    def top_k(
        self, tokens: Array, thumbs: Array, excluded: Array, k: int, more: More = ()
    ) -> tuple[jax.Array, jax.Array]:
        """As `Functions.top_k`."""
        rows = place(self._mesh, Along.ROWS)
        hidden = jax.device_put(self.encode(tokens, thumbs, more), rows)
        missing = ((0, hidden.shape[0] - len(excluded)), (0, 0))
        filled, boosts = np.pad(excluded, missing), self.boosts_of(np.pad(tokens, missing))
        with jax.set_mesh(self._mesh):
            best: tuple[jax.Array, jax.Array] = self._best(
                hidden,
                *self._catalog[:2],
                jax.device_put(filled, rows),
                self._catalog[2],
                boosts=self._spread(boosts),
                top=k,
            )
        return best

    def _spread(self, boosts: Boosts | None) -> Boosts | None:
        if boosts is None:
            return None
        places = jax.tree.map(lambda along: place(self._mesh, along), BOOSTS)
        spread: Boosts = jax.device_put(boosts, places)
        return spread

    @cached_property
    def _best(self) -> Any:
        return jax.jit(partial(best_by_vectors, chunk=CHUNK), static_argnames="top")


class Nearby(Functions):
    """`Functions` whose `top_k` searches only the clusters of items that fit the user best.

    Args:
      bundle, largest_batch, devices, listed: as for `Functions`.
      probes: number of clusters to search; a cluster holds about the square root of all items.

    Raises:
      UserError: the bundle adds covisitation to its scores, which clusters cannot account for; or
        no item can be listed.
    """

    def __init__(
        self,
        bundle: Bundle,
        largest_batch: int,
        devices: Sequence[jax.Device] | None = None,
        listed: npt.NDArray[np.bool_] | None = None,
        *,
        probes: int,
    ) -> None:
        bundle.require_vectors_alone()
        first = tuple(devices or jax.local_devices())[:1]
        super().__init__(bundle, min(largest_batch, _LARGEST_BATCH), first, listed)
        known = bundle.known if listed is None else listed
        if not known.any():
            raise UserError("no item that the retriever can score passes the filters; widen them")
        vectors, bias = np.asarray(self.vectors), np.asarray(self.bias)
        self._clusters = Clusters.of(vectors, bias, known, users_of_one_item(self, known))
        self._probes = probes

    def top_k(
        self, tokens: Array, thumbs: Array, excluded: Array, k: int, more: More = ()
    ) -> tuple[jax.Array, jax.Array]:
        """As `Functions.top_k`, but may miss items."""
        hidden = self.encode(tokens, thumbs, more)
        filled = np.pad(excluded, ((0, hidden.shape[0] - len(excluded)), (0, 0)))
        return self._clusters.best(hidden, jnp.asarray(filled), top=k, probes=self._probes)
