"""Histories as sparse rows over the catalog, and products with item-by-item matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from bert4rec_jax.data.ranges import within
from bert4rec_jax.data.split import Cases, in_training
from bert4rec_jax.data.store import SequenceStore

_LEAST_WEIGHT = 1e-3
_DENSE_CELLS = 1 << 24  # 64 MiB of float32


def training_rows(
    store: SequenceStore, stop: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """`[N]` users and `[N]` tokens of the rows `offsets[u]:stop[u]`, in the store's order."""
    trained = in_training(store, stop)
    users = np.repeat(np.arange(store.num_users), store.lengths)
    return users[trained], store.tokens[trained]


def decayed_histories(cases: Cases, store: SequenceStore, decay: float) -> Any:
    """Sparse `[M, V]`: the histories; the k-th last item, counted from 0, has weight `decay^k`.

    Items with a weight below 0.001 are left out; with `decay` 0 only the last item remains. With
    decay 0.2 the history a b c d e f g becomes g: 1, f: .2, e: .04, d: .008, c: .0016. An item that
    occurs twice has two entries, which products add up.

    Raises:
      ValueError: the decay is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay is {decay}; expected a value in [0, 1)")
    depth = 1 + int(math.log(_LEAST_WEIGHT) / math.log(decay)) if decay else 1
    used = np.minimum(cases.rows - store.offsets[cases.users], depth)
    edges = np.concatenate([[0], np.cumsum(used)])
    back = within(used)
    tokens = store.tokens[np.repeat(cases.rows, used) - 1 - back]
    weights = np.power(np.float32(decay), back, dtype=np.float32)
    return sp.csr_array((weights, tokens, edges), shape=(len(cases), store.catalog.num_rows))


def dense_if_small(matrix: Any) -> Any:
    """Make a sparse `[V, V]` matrix dense if it is small, for 3-5 times faster products."""
    return matrix.toarray() if math.prod(matrix.shape) <= _DENSE_CELLS else matrix


def product(weights: Any, matrix: Any) -> npt.NDArray[np.float32]:
    """Sparse `weights [M, V]` times sparse or dense `matrix [V, V]`, bit-identical: `[M, V]`."""
    result = weights @ matrix
    dense: npt.NDArray[np.float32] = result.toarray() if sp.issparse(result) else result
    return dense
