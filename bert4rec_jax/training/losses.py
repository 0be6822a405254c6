"""Softmax cross-entropy over the whole catalog, exact, at the masked slots only.

    loss = - sum_s w_s log softmax(h_s . e + b)[label_s] / sum_s w_s

Neither dead slots nor `[slots, V]` scores cost anything: slots in use are moved to the front and
worked through in blocks, as many as there are, and the catalog in chunks, which may lie over
several devices. The gradient is written by hand: the pass that training runs forms each block's
softmax anyway, and the block's gradients follow from it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bert4rec_jax.sharding import (
    Along,
    first_local_item,
    max_over_items,
    over_shards,
    sum_over_items,
    sum_over_rows,
)

_SMALLEST_BLOCK = 128  # slots: enough for efficient products
_OUT_OF_SOFTMAX = -1e30


def cross_entropy(
    hidden: jax.Array,
    vectors: jax.Array,
    bias: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    in_softmax: jax.Array,
    *,
    chunk: int,
) -> jax.Array:
    """The weighted mean of `-log p(label)`; 0 when every weight is 0.

    Args:
      hidden: `[N, D]` float32, one vector per slot.
      vectors: `[V, D]` float32 item vectors.
      bias: `[V]` float32.
      labels: `[N]` int, rows of `vectors`.
      weights: `[N]` float32, 0 at slots that are not in use.
      in_softmax: `[V]` bool, false for PAD, MASK, padded rows and items without a training event.
      chunk: items worked on at once, per device.

    Returns:
      A float32 scalar, differentiable in `hidden`, `vectors` and `bias`.
    """
    inputs = (Along.ROWS, Along.ITEMS, Along.ITEMS, Along.ROWS, Along.ROWS, Along.ITEMS)
    gradients = (Along.ROWS, Along.ITEMS, Along.ITEMS)

    @jax.custom_vjp
    def loss(*arrays: jax.Array) -> jax.Array:
        return over_shards(partial(_local_loss, chunk=chunk), inputs, Along.NEITHER)(*arrays)

    def forward(*arrays: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        local = partial(_local_gradients, chunk=chunk)
        return over_shards(local, inputs, (Along.NEITHER, gradients))(*arrays)

    def backward(residuals: tuple[jax.Array, ...], upstream: jax.Array) -> tuple[Any, ...]:
        return (*(upstream * gradient for gradient in residuals), None, None, None)

    loss.defvjp(forward, backward)
    return loss(hidden, vectors, bias, labels, weights, in_softmax)


class _Slots(NamedTuple):
    """A device's slots, those in use first, or a block of them."""

    hidden: jax.Array
    labels: jax.Array
    weights: jax.Array


class _Items(NamedTuple):
    """A device's part of the catalog, or a chunk of it."""

    vectors: jax.Array
    bias: jax.Array
    in_softmax: jax.Array
    tokens: jax.Array


def _local_loss(
    hidden: jax.Array,
    vectors: jax.Array,
    bias: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    in_softmax: jax.Array,
    *,
    chunk: int,
) -> jax.Array:
    slots, _, blocks = _in_use_first(hidden, labels, weights)
    size = _block_size(len(labels))
    chunks = _chunks(vectors, bias, in_softmax, chunk)

    def add(number: jax.Array, loss: jax.Array) -> jax.Array:
        block = _block(slots, number, size)
        return loss + (block.weights * _log_loss(block, chunks)[0]).sum()

    total = jax.lax.fori_loop(0, blocks, add, jnp.zeros(()))
    return sum_over_rows(total) / _total(weights)


def _local_gradients(
    hidden: jax.Array,
    vectors: jax.Array,
    bias: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    in_softmax: jax.Array,
    *,
    chunk: int,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    slots, order, blocks = _in_use_first(hidden, labels, weights)
    size = _block_size(len(labels))
    chunks = _chunks(vectors, bias, in_softmax, chunk)
    total_weight = _total(weights)

    def add(number: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        loss, to_hidden, to_vectors, to_bias = carry
        block = _block(slots, number, size)
        losses, log_normaliser = _log_loss(block, chunks)
        scale = (block.weights / total_weight)[:, None]

        def of_chunk(to_block: jax.Array, items: _Items) -> tuple[jax.Array, Any]:
            scores, is_label = _scores(block, items)
            to_scores = (jnp.exp(scores - log_normaliser[:, None]) - is_label) * scale
            to_items = (to_scores.T @ block.hidden, to_scores.sum(0))
            return to_block + to_scores @ items.vectors, to_items

        to_block, (more_vectors, more_bias) = _scan(of_chunk, jnp.zeros_like(block.hidden), chunks)
        return (
            loss + (block.weights * losses).sum(),
            jax.lax.dynamic_update_slice_in_dim(to_hidden, to_block, number * size, 0),
            to_vectors + more_vectors.reshape(vectors.shape),
            to_bias + more_bias.reshape(bias.shape),
        )

    start = (
        jnp.zeros(()),
        jnp.zeros_like(slots.hidden),
        jnp.zeros_like(vectors),
        jnp.zeros_like(bias),
    )
    loss, to_hidden, to_vectors, to_bias = jax.lax.fori_loop(0, blocks, add, start)
    in_order = jnp.zeros_like(hidden).at[order].set(to_hidden[: len(order)])
    return sum_over_rows(loss) / total_weight, (
        sum_over_items(in_order),
        sum_over_rows(to_vectors),
        sum_over_rows(to_bias),
    )


def _log_loss(block: _Slots, chunks: _Items) -> tuple[jax.Array, jax.Array]:
    """`-log p(label)` and the log normaliser per slot of a block, `[n]` each."""

    def accumulate(carry: tuple[jax.Array, ...], items: _Items) -> tuple[Any, None]:
        highest, total, label_score = carry
        scores, is_label = _scores(block, items)
        new_highest = jnp.maximum(highest, scores.max(-1))
        total = total * jnp.exp(highest - new_highest)
        total += jnp.exp(scores - new_highest[:, None]).sum(-1)
        return (new_highest, total, label_score + jnp.where(is_label, scores, 0).sum(-1)), None

    n = block.labels.shape[0]
    start = (jnp.full(n, _OUT_OF_SOFTMAX), jnp.zeros(n), jnp.zeros(n))
    (highest, total, label_score), _ = _scan(accumulate, start, chunks)
    overall = max_over_items(highest)
    log_normaliser = overall + jnp.log(sum_over_items(total * jnp.exp(highest - overall)))
    return log_normaliser - sum_over_items(label_score), log_normaliser


def _scores(block: _Slots, items: _Items) -> tuple[jax.Array, jax.Array]:
    """Scores of a chunk, `[n, C]`, and where the labels lie in it."""
    scores = block.hidden @ items.vectors.T + items.bias
    scores = jnp.where(items.in_softmax, scores, _OUT_OF_SOFTMAX)
    return scores, block.labels[:, None] == items.tokens


def _in_use_first(
    hidden: jax.Array, labels: jax.Array, weights: jax.Array
) -> tuple[_Slots, jax.Array, jax.Array]:
    """Slots in use moved to the front and padded to whole blocks, their order, used blocks."""
    order = jnp.argsort(weights == 0, stable=True)
    padding = -len(order) % _block_size(len(order))
    slots = _Slots(
        jnp.pad(hidden[order], ((0, padding), (0, 0))),
        jnp.pad(labels[order], (0, padding)),
        jnp.pad(weights[order], (0, padding)),
    )
    return slots, order, -(-(weights != 0).sum() // _block_size(len(order)))


def _block_size(slots: int) -> int:
    """An eighth of the slots, so that few dead ones are in the last block in use."""
    return -(-slots // (8 * _SMALLEST_BLOCK)) * _SMALLEST_BLOCK


def _block(slots: _Slots, number: jax.Array, size: int) -> _Slots:
    return _Slots(*(jax.lax.dynamic_slice_in_dim(x, number * size, size) for x in slots))


def _chunks(vectors: jax.Array, bias: jax.Array, in_softmax: jax.Array, chunk: int) -> _Items:
    """This device's part of the catalog as `[chunks, C, ...]`."""
    items, dim = vectors.shape
    count = number_of_chunks(items, chunk)
    tokens = first_local_item(items) + jnp.arange(items)
    return _Items(
        vectors.reshape(count, -1, dim),
        bias.reshape(count, -1),
        in_softmax.reshape(count, -1),
        tokens.reshape(count, -1),
    )


def _scan(function: Callable[[Any, _Items], tuple[Any, Any]], start: Any, chunks: _Items) -> Any:
    """`lax.scan`, but a single chunk needs no loop: its scores are then computed only once."""
    if len(chunks.tokens) == 1:
        return function(start, jax.tree.map(lambda x: x[0], chunks))
    return jax.lax.scan(function, start, chunks)


def _total(weights: jax.Array) -> jax.Array:
    """The sum of weights over all devices, or 1 where there are none."""
    total = sum_over_rows(weights.sum())
    return jnp.where(total > 0, total, 1.0)


def number_of_chunks(items: int, chunk: int) -> int:
    """The fewest equal chunks of at most `chunk` items."""
    count = -(-items // chunk)
    while items % count:
        count += 1
    return count
