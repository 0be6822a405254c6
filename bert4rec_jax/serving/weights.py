"""Weights: the arrays of a bundle, stored in float32 or rounded to fewer bytes.

float32    as they were trained.
bfloat16   matrices rounded to bfloat16: half the bytes.
int8       matrices as whole numbers q in [-127, 127] and float32 scales s, a quarter of the bytes:
           w = q s with s = max |w| / 127, one s per row of an embedding and per output (last axis)
           of a kernel or of content weights and features.

All other arrays keep their dtype. Only weights are rounded: activations and scores are computed as
in training. Item vectors are kept on device as the weights are stored, and are converted to float32
where they are used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from safetensors import deserialize

from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.lift import COLLECTION, Boosts, boosts_of

Dtype = Literal["float32", "bfloat16", "int8"]
# `[V, D]` item vectors; with int8 also their `[V]` scales.
Vectors = jax.Array | tuple[jax.Array, jax.Array]
_SCALE = "_scale"
_LARGEST = 127
_BY_ROW = {"embedding"}
_BY_OUTPUT = {"kernel", "content", "features"}
_TYPES = {"BOOL": "bool", "BF16": "bfloat16", "I8": "int8", "I32": "int32", "F32": "float32"}


def require_dtype(dtype: str) -> None:
    """Refuse a type of weights that bundles cannot have, before any work is done.

    Raises:
      UserError: it is none of `Dtype`.
    """
    if dtype not in get_args(Dtype):
        raise UserError(f"dtype is {dtype!r}; expected one of {', '.join(get_args(Dtype))}")


def boosts_of_params(params: Mapping[str, jax.Array], histories: jax.Array) -> Boosts | None:
    """The items that histories `[b, l]` raise by covisitation; None for a model without it.

    `params` are the model's parameters by path.
    """
    prefix = f"{COLLECTION}/"
    found = {path.removeprefix(prefix): x for path, x in params.items() if path.startswith(prefix)}
    return boosts_of(found, histories) if found else None


def stored(params: Mapping[str, npt.NDArray[Any]], dtype: Dtype) -> dict[str, npt.NDArray[Any]]:
    """Parameters by path, as a bundle stores them; int8 adds an array of scales per matrix.

    Example: the embedding `[[-2, 1], [0, 0]]` in int8 is `[[-127, 64], [0, 0]]` with the scales
    `[[2 / 127], [1]]`.
    """
    found: dict[str, npt.NDArray[Any]] = {}
    for path, value in params.items():
        name = path.rsplit("/", 1)[-1]
        if value.ndim < 2 or name not in _BY_ROW | _BY_OUTPUT or dtype == "float32":
            found[path] = value
        elif dtype == "bfloat16":
            found[path] = value.astype(jnp.bfloat16)
        else:
            others = tuple(range(1, value.ndim) if name in _BY_ROW else range(value.ndim - 1))
            found[path], found[path + _SCALE] = map(np.asarray, _rounded(value, others))
    return found


def restored(params: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Parameters by path, converted from their stored form to float32."""
    scales = {path + _SCALE for path, value in params.items() if value.dtype == jnp.int8}
    return {
        path: value * params[path + _SCALE]
        if value.dtype == jnp.int8
        else value.astype(jnp.float32)
        if value.dtype == jnp.bfloat16
        else value
        for path, value in params.items()
        if path not in scales
    }


def packed(vectors: jax.Array, dtype: Dtype) -> Vectors:
    """Convert `[V, D]` float32 item vectors to the form that is kept on device."""
    if dtype == "int8":
        rounded, scale = _rounded(vectors, (1,))
        return jnp.asarray(rounded), jnp.asarray(scale[:, 0])
    return vectors.astype(dtype)


def unpacked(vectors: Vectors) -> jax.Array:
    """`[V, D]` float32 item vectors, from the form that is kept on device."""
    if isinstance(vectors, tuple):
        return vectors[0] * vectors[1][:, None]
    return vectors.astype(jnp.float32)


def products(hidden: jax.Array, vectors: Vectors) -> jax.Array:
    """`[b, V]` dot products of user vectors `[b, D]` with all items."""
    if isinstance(vectors, tuple):
        return _by_item(hidden, vectors[0]) * vectors[1]
    return _by_item(hidden, vectors)


def _by_item(hidden: jax.Array, table: jax.Array) -> jax.Array:
    return jnp.einsum("BD,VD->BV", hidden, table.astype(jnp.float32))


def products_at(hidden: jax.Array, vectors: Vectors, items: jax.Array) -> jax.Array:
    """`[b, c]` dot products of user vectors `[b, D]` with the items `[b, c]` of each user.

    A CPU computes one user at a time: the gathered vectors of one user stay in its cache, those of
    a batch do not.
    """
    table = vectors[0] if isinstance(vectors, tuple) else vectors
    found = jax.lax.platform_dependent(hidden, table, items, cpu=_one_by_one, default=_together)
    return found * vectors[1][items] if isinstance(vectors, tuple) else found


def _together(hidden: jax.Array, table: jax.Array, items: jax.Array) -> jax.Array:
    return jnp.einsum("BD,BCD->BC", hidden, table[items].astype(jnp.float32))


def _one_by_one(hidden: jax.Array, table: jax.Array, items: jax.Array) -> jax.Array:
    found: jax.Array = jax.lax.map(
        lambda user: table[user[1]].astype(jnp.float32) @ user[0], (hidden, items)
    )
    return found


def names(stream: BinaryIO) -> list[str]:
    """The names of the arrays of a safetensors file, read from its header."""
    size = int.from_bytes(stream.read(8), "little")
    return [name for name in json.loads(stream.read(size)) if name != "__metadata__"]


def read(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Parse a safetensors file; the NumPy reader of safetensors itself does not know bfloat16."""
    return {
        name: np.frombuffer(array["data"], jnp.dtype(_TYPES[array["dtype"]])).reshape(
            array["shape"]
        )
        for name, array in deserialize(content)  # type: ignore[no-untyped-call]
    }


def _rounded(values: Any, others: tuple[int, ...]) -> tuple[Any, Any]:
    """Whole numbers and scales, one scale for all values along the axes `others`."""
    numpy: Any = np if isinstance(values, np.ndarray) else jnp
    scale = numpy.abs(values).max(axis=others, keepdims=True) / np.float32(_LARGEST)
    scale = numpy.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    return numpy.round(values / scale).astype(np.int8), scale
