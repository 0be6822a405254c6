"""Growth: the state of an earlier run as the first state of one whose catalog has grown."""

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
    """`[V]`: the token that an item had in an earlier run, or -1 if it was not trained on there.

    Items are known by their external ids; PAD and MASK stay what they are.

    Args:
      catalog: the items now.
      earlier: the items then.
      trained: `[earlier V]`, the items that the earlier run was trained on.
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
    """A first state that knows what an earlier run learnt.

    Items that it knew keep their rows, biases and Adam's moments of them. New ones begin as the
    pair `unknown`, so with what their content says, or without content as freshly drawn; their
    moments are 0. All else is as it was, but for the step and the schedule, which begin anew.

    Args:
      mesh: where the state lies.
      fresh: a new state for the grown catalog.
      earlier: the best state of the earlier run, of the same model and optimizer.
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
