"""Digests of parameters and of features, and the checksum of a train state."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bert4rec_jax.sharding import to_host


def digest(params: Any) -> str:
    """SHA-256 over all parameters (name, shape, dtype, bytes): equal digests, equal parameters."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.ascontiguousarray(to_host(leaf))
        sha.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def fingerprint(features: npt.NDArray[np.float32] | None) -> str:
    """SHA-256 of features; empty without any."""
    if features is None:
        return ""
    return hashlib.sha256(np.ascontiguousarray(features).tobytes()).hexdigest()


def checksum(state: Any) -> int:
    """Checksum of all bits of a state; a corrupted state keeps it with a chance of about 1 in 2^32.

    `sum_i bits_i * odd_i mod 2^32` over all elements, with an odd factor per element: the same on
    every mesh. It is needed because Orbax notices missing files, but not every change of their
    bytes.
    """
    return int(_checksum(state))


@jax.jit
def _checksum(state: Any) -> jax.Array:
    total = jnp.uint32(0)
    for number, leaf in enumerate(jax.tree.leaves(state)):
        width = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
        bits = jax.lax.bitcast_convert_type(leaf, width).astype(jnp.uint32)
        place = jnp.uint32(number)
        for axis in range(leaf.ndim):
            index = jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
            place = place * jnp.uint32(0x9E3779B1) + index
        total += (bits * (2 * place + 1)).sum(dtype=jnp.uint32)
    return total
