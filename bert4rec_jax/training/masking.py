"""Masking: which items of each history a model has to predict.

**Masked items** (BERT4Rec). In a history of n items, `clip(round(rate * n), 1, n - 1)` are masked.
They are drawn without replacement, weighted by their thumbs (Gumbel top-k on log weights; Kool et
al. 2019). In a share of the histories only the last item is masked, as at serving time. Example
with rate 0.4 and five items, of which the second and the fifth are drawn:

    tokens   11 12 13 14 15   ->   11  M 13 14  M      slots 1 4, labels 12 15

**Next items** (causal, as SASRec). Nothing is masked, each position attends only to itself and
earlier positions, and every position but the last predicts the next item:

    tokens   11 12 13 14 15   ->   11 12 13 14 15      slots 0 1 2 3, labels 12 13 14 15

Random draws depend only on (key, example, distance from the end of the history). So neither packing
nor the batch nor the devices that a history is in change its masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bert4rec_jax.data.batch import Batch
from bert4rec_jax.data.catalog import MASK
from bert4rec_jax.data.thumbs import NONE


class MaskedBatch(NamedTuple):
    """Inputs of the encoder and targets of its predictions. S slots per row, used ones first.

    Attributes:
      tokens: `[B, L]` with MASK at the masked positions.
      thumbs: `[B, L]` with none at the masked positions: the thumb of the target would be a leak.
      causal: `[B, L]` bool, true where a position attends only to itself and earlier positions.
      slots: `[B, S]` int32 columns that predict an item; the last column for unused slots.
      labels: `[B, S]` target items.
      weights: `[B, S]` float32 weights in the loss; 0 at unused slots.
      in_use: `[B, S]` bool, the used slots, whatever their weights.
    """

    tokens: jax.Array
    thumbs: jax.Array
    causal: jax.Array
    slots: jax.Array
    labels: jax.Array
    weights: jax.Array
    in_use: jax.Array


def number_masked(lengths: Any, rate: float, *, numpy: Any = jnp) -> Any:
    """How many items of histories of these lengths are masked, unless only the last one is.

    `numpy` is the module to compute with, `jax.numpy` or `numpy`.
    """
    return numpy.clip(numpy.round(rate * lengths), 1, lengths - 1)


def num_slots(*, rate: float, next_item: float, max_length: int, max_segments: int) -> int:
    """Number of slots S that suffices for all targets of a row with up to `max_segments` histories.

    At most `max(1, rate * n + 1/2) <= rate * n + 1` of n items are masked.
    """
    if next_item > 0:
        return max_length - 1
    if max_segments == 1:  # .501: devices may round differently than this float
        return max(1, int(rate * max_length + 0.501))
    return min(max_length, int(rate * max_length) + max_segments)


def mask_items(
    key: jax.Array,
    batch: Batch,
    *,
    rate: float,
    last_only: float,
    thumb_weights: Sequence[float],
    loss_weights: Sequence[float],
    next_item: float,
    slots: int,
) -> MaskedBatch:
    """Draw the prediction targets of every history in a batch.

    Args:
      key: the random key of the epoch.
      batch: see `Batch`; its arrays may be on the device.
      rate: share of a history's items that are masked, in (0, 1).
      last_only: share of masked histories in which only the last item is masked, in [0, 1].
      thumb_weights: relative masking weights of the thumbs none, down, up, two up.
      loss_weights: loss weights by the thumb of the target, in the same order.
      next_item: share of histories that predict next items instead, in [0, 1].
      slots: static number S of slots per row, from `num_slots`.
    """
    max_length = batch.tokens.shape[1]
    real = batch.segments != 0
    from_end = max_length - 1 - batch.positions  # 0 at the newest item, in any packing
    example_keys = _fold(jnp.broadcast_to(key, batch.tokens.shape), batch.examples)

    causal = real & (_draw(example_keys, 2**32 - 2) < next_item)
    if next_item == 1:
        masked = jnp.zeros_like(real)
    else:
        only_last = _draw(example_keys, 2**32 - 1) < last_only
        masked = ~causal & _masked(
            batch, example_keys, only_last, from_end, rate=rate, thumb_weights=thumb_weights
        )
    asked = masked | (causal & (from_end > 0))

    def at_answer(values: Any) -> jax.Array:
        return jnp.where(causal, jnp.pad(values[:, 1:], ((0, 0), (0, 1))), values)

    weights = asked * jnp.asarray(loss_weights, jnp.float32)[at_answer(batch.thumbs)]

    # Slot s is the target column with s target columns before it; counting is cheaper than sorting.
    before = jnp.cumsum(asked, axis=1, dtype=jnp.int32)[:, None, :]
    slot = jnp.arange(slots, dtype=jnp.int32)[:, None]
    chosen = jnp.minimum((before <= slot).sum(-1, dtype=jnp.int32), max_length - 1)
    in_use = slot[:, 0] < before[:, 0, -1:]
    return MaskedBatch(
        tokens=jnp.where(masked, MASK, batch.tokens),
        thumbs=jnp.where(masked, NONE, batch.thumbs),
        causal=causal,
        slots=chosen,
        labels=jnp.take_along_axis(at_answer(batch.tokens), chosen, axis=1),
        weights=jnp.where(in_use, jnp.take_along_axis(weights, chosen, axis=1), 0),
        in_use=in_use,
    )


def _masked(
    batch: Batch,
    example_keys: jax.Array,
    only_last: jax.Array,
    from_end: jax.Array,
    *,
    rate: float,
    thumb_weights: Sequence[float],
) -> jax.Array:
    """`[B, L]` bool: which positions are masked."""
    real = batch.segments != 0
    same = (batch.segments[:, :, None] == batch.segments[:, None, :]) & real[:, None, :]
    length = same.sum(-1)
    noise = _per_key(jax.random.gumbel, _fold(example_keys, from_end.astype(jnp.uint32)))
    log_weights = jnp.log(jnp.asarray(thumb_weights, jnp.float32))[batch.thumbs]
    priority = jnp.where(only_last, -from_end.astype(jnp.float32), log_weights + noise)
    wanted = number_masked(length, rate)
    wanted = jnp.where(only_last, 1, wanted)
    ahead = (priority[:, None, :] > priority[:, :, None]) | (
        (priority[:, None, :] == priority[:, :, None])
        & (from_end[:, None, :] < from_end[:, :, None])
    )
    return real & ((same & ahead).sum(-1) < wanted)


def _draw(example_keys: jax.Array, purpose: int) -> jax.Array:
    """`[B, L]` uniform random numbers in [0, 1), the same at all positions of a history."""
    return _per_key(jax.random.uniform, _fold(example_keys, jnp.uint32(purpose)))


def _fold(keys: jax.Array, data: Any) -> jax.Array:
    """Element-wise `fold_in`: `[B, L]` keys and data (or a single number) to `[B, L]` keys."""
    data = jnp.broadcast_to(data, keys.shape)
    return jax.vmap(jax.vmap(jax.random.fold_in))(keys, data)


def _per_key(draw: Callable[[jax.Array], jax.Array], keys: jax.Array) -> jax.Array:
    return jax.vmap(jax.vmap(draw))(keys)
