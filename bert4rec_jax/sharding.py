"""The `data x model` device mesh. No other file names a mesh axis.

The rows of a batch are sharded over `data`, the rows of the item table (and its optimizer state)
over `model`; everything else is replicated. Code that needs to know which shard it works on
(softmax over a sharded catalog, top-k, ranks) runs inside `over_shards` and uses the collectives
below. With one device the mesh is 1 x 1 and the same code runs.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bert4rec_jax.errors import UserError, first_line

_DATA = "data"
_MODEL = "model"
_MOST_CORES = 4
_BY_ITEM = {  # (module, array) of every array with a row per token
    ("item_table", "embedding"),
    ("item_table", "bias"),
    ("item_table", "features"),
    ("item_table", "trained"),
    ("request_time", "first_day"),
}


class Along(Enum):
    """What the first dimensions of an array index, which determines how it is sharded."""

    ROWS = (_DATA,)
    ITEMS = (_MODEL,)
    ROWS_BY_ITEMS = (_DATA, _MODEL)
    STEPS_BY_ROWS = (None, _DATA)
    NEITHER = ()

    @property
    def spec(self) -> P:
        """The `PartitionSpec`."""
        return P(*self.value)


def cores_as_devices(*batch_sizes: int, data: int = -1, model: int = 1) -> None:
    """Let JAX treat each of up to four CPU cores as a device; call before JAX is used.

    XLA computes the small matrix products of attention one after the other, on one core. Cores that
    are devices along the batch do not wait for each other. Each device holds its own copy of the
    parameters, hence at most four. A mesh that needs more devices gets them, even if there are
    fewer cores. Does nothing if the number of devices is already set, with several processes, or
    once JAX is in use.

    Args:
      batch_sizes: sizes of all batches that will be sharded over the devices.
      data, model: see `make_mesh`.
    """
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if chosen or jax.distributed.is_initialized():
        return
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    most = max(min(cores, _MOST_CORES) // model, 1)
    rows = next(n for n in range(most, 0, -1) if all(size % n == 0 for size in batch_sizes))
    count = model * (rows if data == -1 else data)
    if jax.config.values["jax_num_cpu_devices"] == -1:
        with contextlib.suppress(RuntimeError):  # raised if JAX is already in use
            jax.config.update("jax_num_cpu_devices", count)


def make_mesh(
    *, data: int = -1, model: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh over all devices of all processes.

    Args:
      data: devices along the batch; -1: all devices divided by `model`.
      model: devices along the item table.
      devices: devices to use instead of this run's; they may be described rather than present.

    Raises:
      UserError: `data x model` does not match the number of devices.
    """
    count = _device_count() if devices is None else len(devices)
    if count % model:
        raise UserError(
            f"mesh.model is {model}, but it has to divide the {count} devices of this run"
        )
    rows = count // model if data == -1 else data
    if rows * model != count:
        raise UserError(
            f"mesh.data x mesh.model is {rows} x {model} = {rows * model}, but this run has "
            f"{count} devices; use --mesh.data -1 to take what is there"
        )
    # Not `jax.make_mesh`: it refuses to split a physical axis of the torus on some kinds of TPU.
    grid = create_device_mesh((rows, model), devices, allow_split_physical_axes=True)
    return Mesh(grid, (_DATA, _MODEL), axis_types=(AxisType.Auto,) * 2)


def _device_count() -> int:
    try:
        return jax.device_count()
    except (RuntimeError, AssertionError) as error:  # raised by JAX if a platform is missing
        wanted = os.environ.get("JAX_PLATFORMS") or "the default"
        reason = first_line(error) if str(error) else "no such device was found"
        raise UserError(
            f"JAX cannot use the platform {wanted}: {reason}; install the package for it "
            "(pip install '.[cuda]' or '.[tpu]'), or set JAX_PLATFORMS=cpu"
        ) from None


def fits(data: int, model: int) -> bool:
    """Whether the devices of this run can form such a mesh; see `make_mesh`."""
    count = _device_count()
    return count % model == 0 and data in (-1, count // model)


def devices_along(mesh: Mesh) -> tuple[int, int]:
    """Number of devices along the batch, and along the item table."""
    return mesh.shape[_DATA], mesh.shape[_MODEL]


def platform(mesh: Mesh) -> str:
    """The platform of the devices: `cpu`, `gpu` or `tpu`."""
    return str(mesh.devices.flat[0].platform)


def items_mesh(devices: Sequence[jax.Device], num_rows: int) -> Mesh:
    """A mesh that shards `num_rows` of an item table over as many devices as divide that number."""
    count = next(n for n in range(len(devices), 0, -1) if num_rows % n == 0)
    grid = np.asarray(devices[:count]).reshape(1, count)
    return Mesh(grid, (_DATA, _MODEL), axis_types=(AxisType.Auto,) * 2)


def check_divides(mesh: Mesh, *, batch_size: int, num_rows: int) -> None:
    """Check that the mesh splits a batch and the item table evenly.

    Raises:
      UserError: it does not; the message names the value and the axis.
    """
    if batch_size % mesh.shape[_DATA]:
        raise UserError(
            f"a batch of {batch_size} rows does not split over {mesh.shape[_DATA]} devices along "
            "the batch; choose training.batch-size and evaluation.batch-size as multiples of it "
            "(on a CPU, the first run of a process sets the number of devices for all)"
        )
    if num_rows % mesh.shape[_MODEL]:
        raise UserError(
            f"the item table of {num_rows} rows does not split over mesh.model = "
            f"{mesh.shape[_MODEL]} devices; choose a power of two up to 256"
        )


def rounded_up(mesh: Mesh, batch_size: int) -> int:
    """The smallest batch of at least so many rows that the mesh splits evenly."""
    return -(-batch_size // mesh.shape[_DATA]) * mesh.shape[_DATA]


def place(mesh: Mesh, along: Along) -> NamedSharding:
    """The sharding of an array whose first dimensions are `along`."""
    return NamedSharding(mesh, along.spec)


def place_state(mesh: Mesh, state: Any) -> Any:
    """Shardings of a train state or parameters: item tables by row, everything else replicated."""

    def leaf(path: tuple[Any, ...], value: Any) -> NamedSharding:
        return place(mesh, Along.ITEMS if is_by_item(path) else Along.NEITHER)

    return jax.tree.map_with_path(leaf, state)


def is_by_item(path: tuple[Any, ...]) -> bool:
    """Whether the leaf at this path has a row per token.

    Only the end of the path counts, so the optimizer state of such a parameter is found as well.
    """
    names = [getattr(entry, "key", getattr(entry, "name", None)) for entry in path[-2:]]
    return tuple(names) in _BY_ITEM


class RowShare(NamedTuple):
    """Which of several equal shares of a batch's rows a process provides."""

    number: int
    total: int


WHOLE = RowShare(0, 1)


def row_share(mesh: Mesh, rows: int) -> RowShare:
    """The share of a batch's `rows` that the devices of this process hold.

    Processes whose devices hold the same rows, because they share parts of the item table, have the
    same share. It is the whole batch where the rows of this process are no equal share.
    """
    places = place(mesh, Along.ROWS).addressable_devices_indices_map((rows,)).values()
    parts = sorted({slices[0].indices(rows)[:2] for slices in places if slices})
    first, held = parts[0][0], sum(stop - start for start, stop in parts)
    if parts[-1][1] - first != held or rows % held or first % held:
        return WHOLE
    return RowShare(first // held, rows // held)


def global_rows(mesh: Mesh, arrays: Any, along: Along = Along.ROWS, share: RowShare = WHOLE) -> Any:
    """Assemble global batches from the share of the rows that each process provides."""
    sharding, axis = place(mesh, along), along.value.index(_DATA)

    def assembled(x: Any) -> jax.Array:
        shape = [*x.shape]
        shape[axis] *= share.total
        return jax.make_array_from_process_local_data(sharding, x, tuple(shape))

    return jax.tree.map(assembled, arrays)


def put(mesh: Mesh, along: Along, array: Any) -> jax.Array:
    """Shard an array of which every process holds a full copy."""
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, place(mesh, along), lambda part: host[part])


def over_shards(function: Callable[..., Any], inputs: tuple[Any, ...], outputs: Any) -> Any:
    """Run `function` on every device, on that device's shards of the arguments.

    Args:
      function: gets local shards and may call the collectives of this file.
      inputs: how each argument is sharded; one `Along` for all its leaves, or one for each.
      outputs: how each result is sharded, in the structure of the result.
    """
    return jax.shard_map(
        function,
        mesh=_current_mesh(),
        in_specs=jax.tree.map(lambda along: along.spec, inputs),
        out_specs=jax.tree.map(lambda along: along.spec, outputs),
        check_vma=False,
    )


def look_up(table: jax.Array, indices: jax.Array) -> jax.Array:
    """`table[indices]`: rows of an item table, for indices that are sharded along the batch.

    The gradient has at most one nonzero row per index. Where these are few compared to the table,
    devices along the batch gather them instead of summing gradients of the whole table.

    Args:
      table: `[V, D]`.
      indices: `[B, L]` int.

    Returns:
      `[B, L, D]`.
    """
    if not exchanges_rows(_current_mesh(), indices=indices.size, num_rows=len(table)):
        return table[indices]

    @jax.custom_vjp
    def found(table: jax.Array, indices: jax.Array) -> jax.Array:
        return table[indices]

    def forward(table: jax.Array, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        return table[indices], indices

    def backward(indices: jax.Array, upstream: jax.Array) -> tuple[jax.Array, None]:
        inputs = (Along.ROWS, Along.ROWS, Along.ITEMS)
        add = over_shards(_sum_by_item, inputs, Along.ITEMS)
        return add(indices, upstream, jnp.zeros_like(table)), None

    found.defvjp(forward, backward)
    return found(table, indices)


def _sum_by_item(indices: jax.Array, rows: jax.Array, zeros: jax.Array) -> jax.Array:
    indices, rows = (jax.lax.all_gather(x, _DATA, tiled=True) for x in (indices, rows))
    local = indices - first_local_item(len(zeros))
    outside = (local < 0) | (local >= len(zeros))
    return zeros.at[jnp.where(outside, len(zeros), local)].add(rows, mode="drop")


def exchanges_rows(mesh: Mesh | jax.sharding.AbstractMesh, *, indices: int, num_rows: int) -> bool:
    """Whether devices along the batch gather single rows for the gradient of `look_up`.

    In a ring, an all-gather sends each row about once, and an all-reduce of the gradient of a
    device's shard of the table sends that shard about twice.

    Args:
      mesh: the devices.
      indices: number of indices over all devices.
      num_rows: rows of the whole table.
    """
    return mesh.shape[_DATA] > 1 and indices < 2 * (num_rows // mesh.shape[_MODEL])


def first_local_item(local_items: int) -> jax.Array:
    """Inside `over_shards`: the index of this device's first row of the item table."""
    return jax.lax.axis_index(_MODEL) * local_items


def max_over_items(x: jax.Array) -> jax.Array:
    """Inside `over_shards`: the maximum over the shards of the item table."""
    return jax.lax.pmax(x, _MODEL)


def sum_over_items(x: jax.Array) -> jax.Array:
    """Inside `over_shards`: the sum over the shards of the item table."""
    return jax.lax.psum(x, _MODEL)


def sum_over_rows(x: jax.Array) -> jax.Array:
    """Inside `over_shards`: the sum over the shards of the batch."""
    return jax.lax.psum(x, _DATA)


def gather_over_items(x: jax.Array) -> jax.Array:
    """Inside `over_shards`: concatenate the `[B, k]` of all item table shards along axis 1."""
    return jax.lax.all_gather(x, _MODEL, axis=1, tiled=True)


def _current_mesh() -> Mesh | jax.sharding.AbstractMesh:
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:
        return mesh
    one = np.asarray(jax.local_devices()[:1]).reshape(1, 1)
    return Mesh(one, (_DATA, _MODEL), axis_types=(AxisType.Auto,) * 2)


def to_host(array: jax.Array) -> np.ndarray:
    """Fetch a whole array to the host; it may be sharded over several processes."""
    if array.is_fully_addressable:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
