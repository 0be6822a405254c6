"""Digests: SHA-256 of parameters and of features."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
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
