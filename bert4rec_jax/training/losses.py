"""Softmax cross-entropy over the whole catalog, exact, at the masked slots only.

    loss = - sum_s w_s log softmax(h_s . e + b)[label_s] / sum_s w_s

Neither dead slots nor `[slots, V]` scores cost anything: slots in use are moved to the front and
worked through in blocks, as many as there are, and the catalog in chunks, which may lie over
several devices. The gradient is written by hand. Where the catalog is one chunk, the scores of a
block give its softmax and its gradients at once. Otherwise there are two passes over the catalog,
one for the normalisers and one for the gradients; in each a chunk of the table is read once, all
blocks meet it, and its gradient is written once.
"""

from __future__ import annotations

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
_NOBODY = -1  # no slot's label


class Histories(NamedTuple):
    """The histories that slots are of, where the other items of a history are no alternatives.

    Attributes:
      tokens: `[B, L]` int, all items of the rows, at masked positions too.
      segments: `[B, L]` int, the number of each item's history in its row, from 1; 0 on padding.
      of_slots: `[B * S]` int, the number of each slot's history in its row.
    """

    tokens: jax.Array
    segments: jax.Array
    of_slots: jax.Array


def cross_entropy(
    hidden: jax.Array,
    vectors: jax.Array,
    bias: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    in_softmax: jax.Array,
    histories: Histories | None = None,
    *,
    chunk: int,
    max_segments: int = 1,
) -> jax.Array:
    """The weighted mean of `-log p(label)`; 0 when every weight is 0.

    Args:
      hidden: `[N, D]` float32, one vector per slot.
      vectors: `[V, D]` float32 item vectors.
      bias: `[V]` float32.
      labels: `[N]` int, rows of `vectors`.
      weights: `[N]` float32, 0 at slots that are not in use.
      in_softmax: `[V]` bool, false for PAD, MASK, padded rows and items without a training event.
      histories: those of the slots, whose items are out of the softmax but for the label; None
        leaves them in.
      chunk: the most items worked on at once, per device.
      max_segments: histories that a row can hold.

    Returns:
      A float32 scalar, differentiable in `hidden`, `vectors` and `bias`.
    """
    inputs = (
        Along.ROWS, Along.ITEMS, Along.ITEMS, Along.ROWS, Along.ROWS, Along.ITEMS, Along.ROWS,
    )  # fmt: skip
    gradients = (Along.ROWS, Along.ITEMS, Along.ITEMS)

    @jax.custom_vjp
    def loss(*arrays: Any) -> jax.Array:
        return over_shards(
            partial(_local_loss, chunk=chunk, max_segments=max_segments), inputs, Along.NEITHER
        )(*arrays)

    def forward(*arrays: Any) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        local = partial(_local_gradients, chunk=chunk, max_segments=max_segments)
        return over_shards(local, inputs, (Along.NEITHER, gradients))(*arrays)

    def backward(residuals: tuple[jax.Array, ...], upstream: jax.Array) -> tuple[Any, ...]:
        return (*(upstream * gradient for gradient in residuals), None, None, None, None)

    loss.defvjp(forward, backward)
    return loss(hidden, vectors, bias, labels, weights, in_softmax, histories)


class _Slots(NamedTuple):
    """A device's slots, those in use first, or a block of them."""

    hidden: jax.Array
    labels: jax.Array
    weights: jax.Array
    histories: jax.Array


class _Items(NamedTuple):
    """A device's part of the catalog, or a chunk of it."""

    vectors: jax.Array
    bias: jax.Array
    in_softmax: jax.Array
    tokens: jax.Array
    held: jax.Array | None = None  # `[H, C]` bool, by which of the device's histories


class _Held(NamedTuple):
    """Which history holds which item, pair by pair, and how many histories there are."""

    histories: jax.Array
    tokens: jax.Array
    total: int


class _Softmax(NamedTuple):
    """What is known of each slot's softmax: of a block or of all slots, `[n]` each."""

    highest: jax.Array
    total: jax.Array
    label_score: jax.Array


class _Gradients(NamedTuple):
    """With respect to the slots, those in use first, and to the device's part of the catalog."""

    hidden: jax.Array
    vectors: jax.Array
    bias: jax.Array


def _local_loss(
    hidden: jax.Array,
    vectors: jax.Array,
    bias: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    in_softmax: jax.Array,
    histories: Histories | None,
    *,
    chunk: int,
    max_segments: int,
) -> jax.Array:
    of_slots, held = _held(histories, len(labels), max_segments)
    slots, _, blocks = _in_use_first(_Slots(hidden, labels, weights, of_slots))
    items = _local_items(vectors, bias, in_softmax)
    losses, _ = _log_loss(_softmax(slots, blocks, items, held, chunk))
    return sum_over_rows(_weighted(slots.weights, losses)) / _total(weights)


def _local_gradients(
    hidden: jax.Array,
    vectors: jax.Array,
    bias: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    in_softmax: jax.Array,
    histories: Histories | None,
    *,
    chunk: int,
    max_segments: int,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    of_slots, held = _held(histories, len(labels), max_segments)
    slots, order, blocks = _in_use_first(_Slots(hidden, labels, weights, of_slots))
    items = _local_items(vectors, bias, in_softmax)
    total = _total(weights)
    in_one = _in_one_pass if len(bias) <= chunk else partial(_in_two_passes, chunk=chunk)
    loss, gradients = in_one(slots, blocks, items, held, total)
    in_order = jnp.zeros_like(hidden).at[order].set(gradients.hidden[: len(order)])
    return sum_over_rows(loss) / total, (
        sum_over_items(in_order),
        sum_over_rows(gradients.vectors),
        sum_over_rows(gradients.bias),
    )


def _in_one_pass(
    slots: _Slots, blocks: jax.Array, items: _Items, held: _Held | None, total: jax.Array
) -> tuple[jax.Array, _Gradients]:
    """The weighted sum of losses and the gradients; the scores of a block are computed once."""
    size = _block_size(len(slots.labels))
    items = _marked(items, held)

    def of_block(
        number: jax.Array, carry: tuple[jax.Array, _Gradients]
    ) -> tuple[jax.Array, _Gradients]:
        loss, gradients = carry
        block = _block(slots, number, size)
        scores = _scores(block, items)
        losses, log_normaliser = _log_loss(_joined(_nothing(size), *scores))
        more = _to_scores(block, scores, log_normaliser, total)
        gradients = _added(gradients, more, block, items, number * size, 0)
        return loss + _weighted(block.weights, losses), gradients

    return jax.lax.fori_loop(0, blocks, of_block, (jnp.zeros(()), _no_gradients(slots, items)))


def _in_two_passes(
    slots: _Slots,
    blocks: jax.Array,
    items: _Items,
    held: _Held | None,
    total: jax.Array,
    *,
    chunk: int,
) -> tuple[jax.Array, _Gradients]:
    """The weighted sum of losses and the gradients, whatever the size of the catalog."""
    size = _block_size(len(slots.labels))
    losses, log_normaliser = _log_loss(_softmax(slots, blocks, items, held, chunk))

    def of_chunk(index: jax.Array, gradients: _Gradients) -> _Gradients:
        part, first = _chunk(items, held, index, chunk)

        def of_block(number: jax.Array, gradients: _Gradients) -> _Gradients:
            block = _block(slots, number, size)
            normaliser = jax.lax.dynamic_slice_in_dim(log_normaliser, number * size, size)
            more = _to_scores(block, _scores(block, part), normaliser, total)
            return _added(gradients, more, block, part, number * size, first)

        return jax.lax.fori_loop(0, blocks, of_block, gradients)

    count = number_of_chunks(len(items.tokens), chunk)
    gradients = jax.lax.fori_loop(0, count, of_chunk, _no_gradients(slots, items))
    return _weighted(slots.weights, losses), gradients


def _softmax(
    slots: _Slots, blocks: jax.Array, items: _Items, held: _Held | None, chunk: int
) -> _Softmax:
    """The softmax of all slots over this device's part of the catalog, chunk by chunk."""
    size = _block_size(len(slots.labels))

    def of_chunk(index: jax.Array, known: _Softmax) -> _Softmax:
        part, _ = _chunk(items, held, index, chunk)

        def of_block(number: jax.Array, known: _Softmax) -> _Softmax:
            start = number * size
            before = _Softmax(*(jax.lax.dynamic_slice_in_dim(x, start, size) for x in known))
            after = _joined(before, *_scores(_block(slots, number, size), part))
            return _Softmax(
                *(
                    jax.lax.dynamic_update_slice_in_dim(x, new, start, 0)
                    for x, new in zip(known, after)
                )
            )

        return jax.lax.fori_loop(0, blocks, of_block, known)

    count = number_of_chunks(len(items.tokens), chunk)
    return jax.lax.fori_loop(0, count, of_chunk, _nothing(len(slots.labels)))


def _nothing(slots: int) -> _Softmax:
    return _Softmax(jnp.full(slots, _OUT_OF_SOFTMAX), jnp.zeros(slots), jnp.zeros(slots))


def _joined(known: _Softmax, scores: jax.Array, is_label: jax.Array) -> _Softmax:
    """What is known once further scores `[n, C]` are."""
    highest = jnp.maximum(known.highest, scores.max(-1))
    total = known.total * jnp.exp(known.highest - highest)
    total += jnp.exp(scores - highest[:, None]).sum(-1)
    return _Softmax(highest, total, known.label_score + jnp.where(is_label, scores, 0).sum(-1))


def _log_loss(local: _Softmax) -> tuple[jax.Array, jax.Array]:
    """`-log p(label)` and the log normaliser per slot, over all devices; `[n]` each."""
    overall = max_over_items(local.highest)
    total = sum_over_items(local.total * jnp.exp(local.highest - overall))
    log_normaliser = overall + jnp.log(total)
    return log_normaliser - sum_over_items(local.label_score), log_normaliser


def _weighted(weights: jax.Array, losses: jax.Array) -> jax.Array:
    """The weighted sum; where the weight is 0, the loss may not even be finite."""
    return jnp.where(weights == 0, 0, weights * losses).sum()


def _scores(block: _Slots, items: _Items) -> tuple[jax.Array, jax.Array]:
    """Scores of a chunk, `[n, C]`, and where the labels lie in it."""
    scores = block.hidden @ items.vectors.T + items.bias
    scores = jnp.where(items.in_softmax, scores, _OUT_OF_SOFTMAX)
    is_label = block.labels[:, None] == items.tokens
    if items.held is not None:
        others = items.held[block.histories] & ~is_label
        scores = jnp.where(others, _OUT_OF_SOFTMAX, scores)
    return scores, is_label


def _to_scores(
    block: _Slots, found: tuple[jax.Array, jax.Array], log_normaliser: jax.Array, total: jax.Array
) -> jax.Array:
    """The gradient with respect to scores: `(p - is_label) * weight / total`, `[n, C]`."""
    scores, is_label = found
    scale = (block.weights / total)[:, None]
    return (jnp.exp(scores - log_normaliser[:, None]) - is_label) * scale


def _no_gradients(slots: _Slots, items: _Items) -> _Gradients:
    return _Gradients(*map(jnp.zeros_like, (slots.hidden, items.vectors, items.bias)))


def _added(
    gradients: _Gradients,
    to_scores: jax.Array,
    block: _Slots,
    items: _Items,
    first_slot: jax.Array,
    first_item: jax.Array | int,
) -> _Gradients:
    """Gradients with what the scores of a block and a chunk, which begin there, add to them."""

    def add(x: jax.Array, more: jax.Array, start: jax.Array | int) -> jax.Array:
        more += jax.lax.dynamic_slice_in_dim(x, start, len(more))
        return jax.lax.dynamic_update_slice_in_dim(x, more, start, 0)

    return _Gradients(
        add(gradients.hidden, to_scores @ items.vectors, first_slot),
        add(gradients.vectors, to_scores.T @ block.hidden, first_item),
        add(gradients.bias, to_scores.sum(0), first_item),
    )


def _in_use_first(
    slots: _Slots,
) -> tuple[_Slots, jax.Array, jax.Array]:
    """Slots in use moved to the front and padded to whole blocks, their order, used blocks."""
    order = jnp.argsort(slots.weights == 0, stable=True)
    slots = _Slots(*(x[order] for x in slots))
    padding = padded_slots(len(order)) - len(order)
    padded = (jnp.pad(x, ((0, padding),) + ((0, 0),) * (x.ndim - 1)) for x in slots)
    return _Slots(*padded), order, -(-(slots.weights != 0).sum() // _block_size(len(order)))


def _block_size(slots: int) -> int:
    """An eighth of the slots, so that few dead ones are in the last block in use."""
    return -(-slots // (8 * _SMALLEST_BLOCK)) * _SMALLEST_BLOCK


def padded_slots(slots: int) -> int:
    """A device's number of slots, in whole blocks."""
    return -(-slots // _block_size(slots)) * _block_size(slots)


def _block(slots: _Slots, number: jax.Array, size: int) -> _Slots:
    return _Slots(*(jax.lax.dynamic_slice_in_dim(x, number * size, size) for x in slots))


def _local_items(vectors: jax.Array, bias: jax.Array, in_softmax: jax.Array) -> _Items:
    tokens = first_local_item(len(bias)) + jnp.arange(len(bias))
    return _Items(vectors, bias, in_softmax, tokens)


def _held(
    histories: Histories | None, slots: int, max_segments: int
) -> tuple[jax.Array, _Held | None]:
    """The history of each of a device's slots, `[n]`, and what its histories hold."""
    if histories is None:
        return jnp.zeros(slots, jnp.int32), None
    rows = len(histories.tokens)
    row = jnp.arange(rows)
    of_slots = jnp.repeat(row, slots // rows) * max_segments + histories.of_slots - 1
    of_items = row[:, None] * max_segments + histories.segments - 1
    count = rows * max_segments
    of_items = jnp.where(histories.segments > 0, of_items, count)
    held = _Held(of_items.reshape(-1), histories.tokens.reshape(-1), count)
    return jnp.maximum(of_slots, 0), held


def _marked(items: _Items, held: _Held | None) -> _Items:
    """Items with the histories that hold them."""
    if held is None:
        return items
    size = len(items.tokens)
    place = held.tokens - (items.tokens[-1] - (size - 1))
    place = jnp.where(place < 0, size, place)
    none = jnp.zeros((held.total, size), bool)
    return items._replace(held=none.at[held.histories, place].set(True, mode="drop"))


def _chunk(
    items: _Items, held: _Held | None, index: jax.Array, chunk: int
) -> tuple[_Items, jax.Array]:
    """A chunk and the row that it begins with.

    All are equally long, so the last one may begin with rows of the one before it. These are out of
    its softmax and nobody's label, so they get no gradient a second time.
    """
    rows = len(items.tokens)
    size = -(-rows // number_of_chunks(rows, chunk))
    first = jnp.minimum(index * size, rows - size)
    part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, size), items)
    part = _marked(part, held)
    new = first + jnp.arange(size) >= index * size
    return (
        part._replace(
            in_softmax=part.in_softmax & new, tokens=jnp.where(new, part.tokens, _NOBODY)
        ),
        first,
    )


def _total(weights: jax.Array) -> jax.Array:
    """The sum of weights over all devices, or 1 where there are none."""
    total = sum_over_rows(weights.sum())
    return jnp.where(total > 0, total, 1.0)


def number_of_chunks(items: int, chunk: int) -> int:
    """The fewest chunks of at most `chunk` items."""
    return -(-items // chunk)
