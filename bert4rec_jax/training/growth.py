"""Growth: starts a run on a grown catalog from the train state of an earlier run."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jax.sharding import Mesh

from bert4rec_jax.data.catalog import FIRST_ITEM, Catalog
from bert4rec_jax.sharding import is_by_item, place_state, to_host
from bert4rec_jax.training.step import TrainState


def earlier_tokens(
    catalog: Catalog, earlier: Catalog, trained: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """`[V]`: each item's token in an earlier run, or -1 if that run was not trained on the item.

    Items are matched by their external ids. PAD and MASK keep their tokens.

    Args:
      catalog: the catalog of the new run.
      earlier: the catalog of the earlier run.
      trained: `[V of the earlier run]` bool, the items that the earlier run was trained on.
    """
    then = {item_id: FIRST_ITEM + i for i, item_id in enumerate(earlier.item_ids)}
    tokens = np.full(catalog.num_rows, -1, np.int64)
    tokens[:FIRST_ITEM] = np.arange(FIRST_ITEM)
    for token, item_id in enumerate(catalog.item_ids, start=FIRST_ITEM):
        before = then.get(item_id, -1)
        if before >= 0 and trained[before]:
            tokens[token] = before
    return tokens


def grown_state(
    mesh: Mesh, fresh: TrainState, earlier: TrainState, tokens: npt.NDArray[np.int64]
) -> TrainState:
    """The initial state of a run that continues from what an earlier run learned.

    Items that the earlier run was trained on keep their embeddings, biases and Adam moments. All
    other items start as the pair `unknown`, so that their vectors come from their content; without
    content they start freshly initialised. Their moments are 0. Everything else is copied, except
    for the step and the schedule, which restart from 0.

    Args:
      mesh: the devices to place the state on.
      fresh: a freshly initialised state for the grown catalog.
      earlier: the best state of the earlier run, with the same model and optimizer.
      tokens: `[V]`, see `earlier_tokens`.
    """
    known = tokens >= 0

    def rows(path: tuple[Any, ...], new: Any, old: Any, filled: Any = None) -> Any:
        if not is_by_item(path):
            return to_host(old)
        grown = np.array(to_host(new) if filled is None else np.broadcast_to(filled, new.shape))
        grown[known] = to_host(old)[tokens[known]]
        return grown

    def parameter(path: tuple[Any, ...], new: Any, old: Any) -> Any:
        unknown = {"embedding": "unknown", "bias": "unknown_bias"}.get(path[-1].key, "")
        return rows(path, new, old, table.get(unknown))

    def moment(path: tuple[Any, ...], new: Any, old: Any) -> Any:
        return new if _is_schedule(new) else rows(path, new, old, np.zeros((), np.float32))

    table = {name: to_host(value) for name, value in earlier.params["item_table"].items()}
    state = TrainState(
        jnp.zeros((), jnp.int32),
        jax.tree.map_with_path(parameter, fresh.params, earlier.params),
        jax.tree.map_with_path(moment, fresh.opt_state, earlier.opt_state, is_leaf=_is_schedule),
    )
    return jax.tree.map(_put, state, place_state(mesh, fresh))


def _is_schedule(node: Any) -> bool:
    return isinstance(node, optax.ScaleByScheduleState)


def _put(value: Any, sharding: Any) -> jax.Array:
    host = to_host(value) if isinstance(value, jax.Array) else np.asarray(value)
    return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])
