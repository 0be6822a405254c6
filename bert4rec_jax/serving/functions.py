"""Functions: what a bundle computes, on all devices of this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from bert4rec_jax.serving.buckets import batch_size
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.sharding import Along, make_mesh, over_shards, put

Array = npt.NDArray[Any]


class Functions:
    """The functions of a bundle. Batches lie over the devices, everything else is on each.

    Rows are filled up to a few sizes, so the first `n` rows of a result are the answer. Results are
    on device and may still be being computed; `np.asarray` waits for them.

    Args:
      bundle: where they come from.
      largest_batch: rows computed at once, at most; changes no result.
    """

    def __init__(self, bundle: Bundle, largest_batch: int) -> None:
        self.mesh = make_mesh()
        self.largest_batch = largest_batch
        self._bundle = bundle
        self._params = self._everywhere(bundle.parameters())
        vectors, bias = jax.jit(bundle.function("item_vectors").call)(self._params)
        self.vectors: jax.Array = vectors
        self.bias: jax.Array = bias
        self._items = (vectors, bias, self._everywhere(bundle.known))

    def encode(self, tokens: Array, thumbs: Array) -> jax.Array:
        """`[n.., D]` float32 user vectors of `[n, l]` histories."""
        return self._encode(self._params, *self._rows(tokens, thumbs))

    def score(self, tokens: Array, thumbs: Array, candidates: Array) -> jax.Array:
        """`[n.., c]` float32 scores of `[n, c]` candidates; -inf for those not known."""
        return self._score(self._params, self._items, *self._rows(tokens, thumbs, candidates))

    def top_k(
        self, tokens: Array, thumbs: Array, excluded: Array, k: int
    ) -> tuple[jax.Array, jax.Array]:
        """`[n.., k]` float32 scores and int32 tokens of the best items; -inf and PAD at the end.

        `k` is at most the number of rows V of the item table.
        """
        rows = self._rows(tokens, thumbs, excluded)
        return self._top_k(self._params, self._items, *rows, np.zeros(k, np.int8))

    def attend(self, rows: Array, thumbs: Array, slots: Array) -> tuple[jax.Array, jax.Array]:
        """Histories whose MASKs are in place, `[n, l]`, asked at `[n, 1]` slots.

        `[n.., D]` user vectors and `[n.., layers, H, l]` attention from the slots, both float32.

        Raises:
          UserError: the bundle was made without this function.
        """
        return self._attend(self._params, *self._rows(rows, thumbs, slots))

    @cached_property
    def _attend(self) -> Any:
        inputs = (Along.NEITHER, *[Along.ROWS] * 3)
        return self._on_devices("attend", inputs, (Along.ROWS, Along.ROWS))

    @cached_property
    def _encode(self) -> Any:
        return self._on_devices("encode", (Along.NEITHER, Along.ROWS, Along.ROWS), Along.ROWS)

    @cached_property
    def _score(self) -> Any:
        return self._on_devices(
            "score", (Along.NEITHER, Along.NEITHER, *[Along.ROWS] * 3), Along.ROWS
        )

    @cached_property
    def _top_k(self) -> Any:
        inputs = (Along.NEITHER, Along.NEITHER, *[Along.ROWS] * 3, Along.NEITHER)
        return self._on_devices("top_k", inputs, (Along.ROWS, Along.ROWS))

    def _on_devices(self, name: str, inputs: Any, outputs: Any) -> Callable[..., Any]:
        """Each device calls the function for its own rows: no communication."""
        exported = self._bundle.function(name).call
        with jax.set_mesh(self.mesh):
            compiled = jax.jit(over_shards(exported, inputs, outputs))

        def call(*arguments: Any) -> Any:
            with jax.set_mesh(self.mesh):
                return compiled(*arguments)

        return call

    def _rows(self, *arrays: Array) -> tuple[jax.Array, ...]:
        rows = len(arrays[0])
        filled = batch_size(rows, self.largest_batch, self.mesh.size) - rows
        return tuple(
            put(self.mesh, Along.ROWS, np.pad(array, ((0, filled), (0, 0)))) for array in arrays
        )

    def _everywhere(self, tree: Any) -> Any:
        return jax.tree.map(lambda array: put(self.mesh, Along.NEITHER, array), tree)
