"""Functions: runs the functions of a bundle on all devices of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.delimited import shorten
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.lift import Boosts
from bert4rec_jax.serving.arguments import require_list
from bert4rec_jax.serving.buckets import batch_size
from bert4rec_jax.serving.bundle import FUNCTIONS, Bundle
from bert4rec_jax.serving.weights import boosts_of_params, unpacked

Array = npt.NDArray[Any]
More = tuple[Array, ...]


class Functions:
    """The functions of a bundle, with a copy of the model on every device.

    Full batches go to the devices in turn, smaller ones to the first. Each batch is computed by one
    device, so the number of devices changes no bit of a result. Batches of n rows are padded to a
    few sizes: a result `[n.., D]` has at least n rows, of which the first n are the answer. Results
    are on device and may still be being computed; `np.asarray` waits for them.

    Attributes:
      vectors: `[V, D]` float32 item vectors, with the precision at which the bundle stores weights.
      bias: `[V]` float32.
      user_encoding: encodes user features; None for a model without them.

    The argument `more` holds what else the model reads, if it does: `(users [n, G],)`, or
    `(times [n, l], at [n, 1])` (without `at` for `attend`); see `traced.Serving`. If it is empty,
    features are unknown, and everything happens when the training data ends.

    Args:
      bundle: the bundle whose functions to run.
      largest_batch: rows computed at once by one device, at most.
      devices: of one kind; None for all of this process.
      listed: `[V]`, the items that can be listed; None for all that the model can score.
    """

    def __init__(
        self,
        bundle: Bundle,
        largest_batch: int,
        devices: Sequence[jax.Device] | None = None,
        listed: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.largest_batch = largest_batch
        if devices is not None:
            require_list("devices", devices, "a list of devices, such as `jax.devices()`")
        self.devices = tuple(jax.local_devices() if devices is None else devices)
        if not self.devices or not all(isinstance(each, jax.Device) for each in self.devices):
            raise UserError(
                f"devices is {shorten(devices)}; expected one or more, such as `jax.devices()`, or "
                "None for all"
            )
        self._turns = cycle(self.devices)
        self._bundle = bundle
        self.user_encoding = bundle.user_encoding
        self._functions = {
            name: jax.jit(bundle.function(name).call) for name in FUNCTIONS if bundle.has(name)
        }
        params = jax.device_put(bundle.parameters(), self.devices[0])
        self._raised: Any = jax.jit(boosts_of_params)
        vectors, bias = self._function("item_vectors")(params)
        self.vectors: jax.Array = jax.jit(unpacked)(vectors)
        self.bias: jax.Array = bias
        known = jax.device_put(bundle.known if listed is None else listed, self.devices[0])
        self._copies = {self.devices[0]: (params, (vectors, bias, known))}

    def encode(self, tokens: Array, thumbs: Array, more: More = ()) -> jax.Array:
        """`[n.., D]` float32 user vectors of `[n, l]` histories."""
        (params, _), rows = self._place(tokens, thumbs, *self._completed(more, tokens))
        return self._function("encode")(params, *rows)

    def score(self, tokens: Array, thumbs: Array, candidates: Array, more: More = ()) -> jax.Array:
        """`[n.., c]` float32 scores of `[n, c]` candidates; -inf if one cannot be listed."""
        known = self._completed(more, tokens)
        (params, items), rows = self._place(tokens, thumbs, candidates, *known)
        return self._function("score")(params, items, *rows)

    def top_k(
        self, tokens: Array, thumbs: Array, excluded: Array, k: int, more: More = ()
    ) -> tuple[jax.Array, jax.Array]:
        """`[n.., k]` float32 scores and int32 tokens of the best items; -inf and PAD at the end.

        `k` is at most the number of rows V of the item table.
        """
        known = self._completed(more, tokens)
        (params, items), rows = self._place(tokens, thumbs, excluded, *known)
        places = np.zeros(k, np.int8)
        return self._function("top_k")(params, items, *rows[:3], places, *rows[3:])

    def attend(
        self, rows: Array, thumbs: Array, slots: Array, more: More = ()
    ) -> tuple[jax.Array, jax.Array]:
        """Encode histories `[n, l]` that already contain MASK, and read them at `[n, 1]` slots.

        Returns `[n.., D]` user vectors and `[n.., layers, H, l]` attention weights from the slots,
        both float32.

        Raises:
          UserError: the bundle was made before this function existed.
        """
        known = self._completed(more, rows)[:1]
        (params, _), placed = self._place(rows, thumbs, slots, *known)
        attended: tuple[jax.Array, jax.Array] = self._function("attend")(params, *placed)
        return attended

    def boosts_of(self, histories: Array) -> Boosts | None:
        """The items that `[n, l]` histories raise by covisitation; None for a model without it."""
        return self._raised(self._copies[self.devices[0]][0], histories)

    def _function(self, name: str) -> Any:
        self._bundle.require(name)
        return self._functions[name]

    def _completed(self, more: More, histories: Array) -> More:
        """The arguments `more`, or what stands for them if they are empty."""
        if more:
            return more
        if self.user_encoding is not None:
            return (self.user_encoding.unknown(len(histories)),)
        if self._bundle.reads_times:
            moment = np.uint32(self._bundle.trained_until)
            return np.full(histories.shape, moment), np.full((len(histories), 1), moment)
        return ()

    def _place(self, *arrays: Array) -> tuple[tuple[Any, Any], tuple[Array, ...]]:
        """The model's copy on the device to use, and the arrays padded to a few batch sizes."""
        rows = len(arrays[0])
        device = next(self._turns) if rows == self.largest_batch else self.devices[0]
        if device not in self._copies:
            self._copies[device] = jax.device_put(self._copies[self.devices[0]], device)
        filled = batch_size(rows, self.largest_batch) - rows
        return self._copies[device], tuple(np.pad(array, ((0, filled), (0, 0))) for array in arrays)
