"""Exact softmax cross-entropy over the whole catalog, at the masked slots only.

    loss = - sum_s w_s log softmax(h_s . e + b)[label_s] / sum_s w_s

Unused slots cost almost nothing, and the `[slots, V]` scores of a large catalog never exist. Used
slots are moved to the front and processed in blocks; only blocks with used slots are computed. The
catalog is processed in chunks and may be sharded over several devices. The gradient is written by
hand. If the catalog is a single chunk, the scores of a block give both its softmax and its
gradients. Otherwise there are two passes over the catalog, one for the normalisers and one for the
gradients. In each pass a chunk of the item table is read once, combined with all blocks, and its
gradient written once.

A GPU has to synchronise with the host in every loop whose length depends on data, and has memory
for more scores. There all slots, used or not, form a single block (`blocks`).

The scores of a block are the only large array, so few operations read or write it: a product, a
maximum, an exponential, and two products for the gradients. Label scores are computed separately,
not picked from that array, and slot weights are multiplied into the slots' vectors, not into it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

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

BLOCKS = 8  # enough that the last used block has few unused slots
_SMALLEST_BLOCK = 128  # slots; enough for efficient matrix products
_OUT_OF_SOFTMAX = -1e30


Arrays = TypeVar("Arrays")
Number = jax.Array | int


class Histories(NamedTuple):
    """The histories of the slots, to exclude a history's other items from its slots' softmax.

    Attributes:
      tokens: `[B, L]` int, all items of the rows, before masking.
      segments: `[B, L]` int, number of each item's history within its row, from 1; 0 on padding.
      of_slots: `[B * S]` int, number of each slot's history within its row.
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
    blocks: int = BLOCKS,
) -> jax.Array:
    """The weighted mean of `-log p(label)` over all slots; 0 if every weight is 0.

    Args:
      hidden: `[N, D]` float32, one vector per slot.
      vectors: `[V, D]` float32 item vectors.
      bias: `[V]` float32.
      labels: `[N]` int target items, rows of `vectors`.
      weights: `[N]` float32 loss weights, 0 at unused slots.
      in_softmax: `[V]` bool, false for PAD, MASK, padded rows and items that are not trained on.
      histories: the histories of the slots. Their items are left out of the softmax, except for the
        label, which must be one of them. None keeps all items.
      chunk: maximum number of items scored at once, per device.
      max_segments: maximum number of histories in a row.
      blocks: number of blocks that a device's slots are split into; with several blocks, only those
        with used slots are computed.

    Returns:
      A float32 scalar, differentiable in `hidden`, `vectors` and `bias`.
    """
    inputs = (
        Along.ROWS, Along.ITEMS, Along.ITEMS, Along.ROWS, Along.ROWS, Along.ITEMS, Along.ROWS,
    )  # fmt: skip
    gradients = (Along.ROWS, Along.ITEMS, Along.ITEMS)

    @jax.custom_vjp
    def loss(*arrays: Any) -> jax.Array:
        local = partial(_local_loss, chunk=chunk, max_segments=max_segments, blocks=blocks)
        return over_shards(local, inputs, Along.NEITHER)(*arrays)

    def forward(*arrays: Any) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        local = partial(_local_gradients, chunk=chunk, max_segments=max_segments, blocks=blocks)
        return over_shards(local, inputs, (Along.NEITHER, gradients))(*arrays)

    def backward(residuals: tuple[jax.Array, ...], upstream: jax.Array) -> tuple[Any, ...]:
        return (*(upstream * gradient for gradient in residuals), None, None, None, None)

    loss.defvjp(forward, backward)
    return loss(hidden, vectors, bias, labels, weights, in_softmax, histories)


class _Slots(NamedTuple):
    """A device's slots, or a block of them."""

    hidden: jax.Array
    labels: jax.Array
    weights: jax.Array
    histories: jax.Array


class _Cut(NamedTuple):
    """Slots per block, and number of blocks with used slots (int 1 for a single block)."""

    size: int
    in_use: Number


class _Items(NamedTuple):
    """A device's shard of the catalog, or a chunk of it."""

    vectors: jax.Array
    bias: jax.Array  # _OUT_OF_SOFTMAX for items that are not in the softmax
    first: Number  # token of the first item
    held: jax.Array | None = None  # `[H, C]` bool: whether history h holds item c


class _Held(NamedTuple):
    """Pairs of a history and an item that it holds, and the number of histories."""

    histories: jax.Array
    tokens: jax.Array
    total: int


class _Labels(NamedTuple):
    """The labels of a device's slots, or of a block, looked up in its shard of the catalog."""

    rows: jax.Array  # `[n]` row in this shard; one past its end for labels of other shards
    vectors: jax.Array  # `[n, D]`, 0 for labels of other shards
    scores: jax.Array  # `[n]`, summed over shards, so valid for all labels


class _Softmax(NamedTuple):
    """Running softmax of slots: maximum score, and sum of `exp(score - maximum)`; `[n]` each."""

    highest: jax.Array
    total: jax.Array


class _Gradients(NamedTuple):
    """Gradients with respect to the slots (ordered as `_Slots`) and this shard of the catalog."""

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
    blocks: int,
) -> jax.Array:
    of_slots, held = _held(histories, len(labels), max_segments)
    slots, _, cut = _in_use_first(_Slots(hidden, labels, weights, of_slots), blocks)
    items = _local_items(vectors, bias, in_softmax)
    of_labels = _look_up(slots, items)
    found = _overall(_softmax(slots, cut, items, held, chunk), of_labels, held)
    losses = _losses(found, of_labels)
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
    blocks: int,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    of_slots, held = _held(histories, len(labels), max_segments)
    slots, order, cut = _in_use_first(_Slots(hidden, labels, weights, of_slots), blocks)
    items = _local_items(vectors, bias, in_softmax)
    of_labels = _look_up(slots, items)
    total = _total(weights)
    in_one = _in_one_pass if len(bias) <= chunk else partial(_in_two_passes, chunk=chunk)
    found, gradients = in_one(slots, cut, items, held, of_labels, total)
    gradients = _without_labels(gradients, slots, of_labels, found, held, total)
    losses = _losses(found, of_labels)
    in_order = jnp.zeros_like(hidden).at[order].set(gradients.hidden[: len(order)])
    return sum_over_rows(_weighted(slots.weights, losses)) / total, (
        sum_over_items(in_order),
        sum_over_rows(gradients.vectors),
        sum_over_rows(gradients.bias),
    )


def _in_one_pass(
    slots: _Slots,
    cut: _Cut,
    items: _Items,
    held: _Held | None,
    of_labels: _Labels,
    total: jax.Array,
) -> tuple[_Softmax, _Gradients]:
    """Softmax and gradients, without the labels' own terms; scores are computed only once."""
    items = _marked(items, held)

    def of_block(number: Number, carry: tuple[_Softmax, _Gradients]) -> tuple[_Softmax, _Gradients]:
        found, gradients = carry
        block, labels = _block(slots, number, cut), _block(of_labels, number, cut)
        scores = _scores(block, items)
        highest = scores.max(-1)
        above = jnp.exp(scores - highest[:, None])
        here = _overall(_Softmax(highest, above.sum(-1)), labels, held)
        share = block.weights / total * jnp.exp(highest - here.highest) / here.total
        gradients = _added(gradients, above, share, block, items, number * cut.size, 0)
        return _put(found, here, number * cut.size), gradients

    start = _nothing(len(slots.labels)), _no_gradients(slots, items)
    return _over_blocks(cut, of_block, start)


def _in_two_passes(
    slots: _Slots,
    cut: _Cut,
    items: _Items,
    held: _Held | None,
    of_labels: _Labels,
    total: jax.Array,
    *,
    chunk: int,
) -> tuple[_Softmax, _Gradients]:
    """As `_in_one_pass`, for a catalog of several chunks; scores are computed twice."""
    found = _overall(_softmax(slots, cut, items, held, chunk), of_labels, held)

    def of_chunk(index: jax.Array, gradients: _Gradients) -> _Gradients:
        part = _chunk(items, held, index, chunk)

        def of_block(number: Number, gradients: _Gradients) -> _Gradients:
            block, here = _block(slots, number, cut), _block(found, number, cut)
            above = jnp.exp(_scores(block, part) - here.highest[:, None])
            share = block.weights / total / here.total
            first = part.first - items.first
            return _added(gradients, above, share, block, part, number * cut.size, first)

        return _over_blocks(cut, of_block, gradients)

    count = number_of_chunks(len(items.bias), chunk)
    return found, jax.lax.fori_loop(0, count, of_chunk, _no_gradients(slots, items))


def _softmax(slots: _Slots, cut: _Cut, items: _Items, held: _Held | None, chunk: int) -> _Softmax:
    """The softmax of all slots over this device's shard of the catalog, chunk by chunk."""

    def of_chunk(index: jax.Array, known: _Softmax) -> _Softmax:
        part = _chunk(items, held, index, chunk)

        def of_block(number: Number, known: _Softmax) -> _Softmax:
            block, before = _block(slots, number, cut), _block(known, number, cut)
            scores = _scores(block, part)
            highest = jnp.maximum(before.highest, scores.max(-1))
            total = before.total * jnp.exp(before.highest - highest)
            total += jnp.exp(scores - highest[:, None]).sum(-1)
            return _put(known, _Softmax(highest, total), number * cut.size)

        return _over_blocks(cut, of_block, known)

    count = number_of_chunks(len(items.bias), chunk)
    return jax.lax.fori_loop(0, count, of_chunk, _nothing(len(slots.labels)))


def _nothing(slots: int) -> _Softmax:
    return _Softmax(jnp.full(slots, _OUT_OF_SOFTMAX), jnp.zeros(slots))


def _put(known: _Softmax, block: _Softmax, start: Number) -> _Softmax:
    return jax.tree.map(
        lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, start, 0), known, block
    )


def _overall(local: _Softmax, of_labels: _Labels, held: _Held | None) -> _Softmax:
    """Combine the softmax over all shards; if a history's items were left out, add the label."""
    highest = local.highest if held is None else jnp.maximum(local.highest, of_labels.scores)
    highest = max_over_items(highest)
    total = sum_over_items(local.total * jnp.exp(local.highest - highest))
    if held is not None:
        total += jnp.exp(of_labels.scores - highest)
    return _Softmax(highest, total)


def _losses(found: _Softmax, of_labels: _Labels) -> jax.Array:
    """`-log p(label)` per slot."""
    return found.highest + jnp.log(found.total) - of_labels.scores


def _weighted(weights: jax.Array, losses: jax.Array) -> jax.Array:
    """The weighted sum; losses with weight 0 are ignored because they may not be finite."""
    return jnp.where(weights == 0, 0, weights * losses).sum()


def _scores(block: _Slots, items: _Items) -> jax.Array:
    """Scores of a chunk, `[n, C]`; with `items.held`, a history's items get _OUT_OF_SOFTMAX."""
    scores = block.hidden @ items.vectors.T + items.bias
    if items.held is None:
        return scores
    return jnp.where(items.held[block.histories], _OUT_OF_SOFTMAX, scores)


def _look_up(slots: _Slots, items: _Items) -> _Labels:
    """Look up the labels of slots in this device's shard of the catalog."""
    rows, beyond = slots.labels - items.first, len(items.bias)
    rows = jnp.where((rows >= 0) & (rows < beyond), rows, beyond)
    vectors = items.vectors.at[rows].get(mode="fill", fill_value=0)
    scores = (slots.hidden * vectors).sum(-1) + items.bias.at[rows].get(mode="fill", fill_value=0)
    return _Labels(rows, vectors, sum_over_items(scores))


def _no_gradients(slots: _Slots, items: _Items) -> _Gradients:
    return _Gradients(*map(jnp.zeros_like, (slots.hidden, items.vectors, items.bias)))


def _added(
    gradients: _Gradients,
    above: jax.Array,
    share: jax.Array,
    block: _Slots,
    items: _Items,
    first_slot: Number,
    first_item: Number,
) -> _Gradients:
    """Add the gradients of one block and one chunk.

    The gradient of their scores is `above * share`, `[n, C]` times `[n]`. The block starts at slot
    `first_slot`, the chunk at row `first_item` of this shard.
    """

    def add(x: jax.Array, more: jax.Array, start: Number) -> jax.Array:
        more += jax.lax.dynamic_slice_in_dim(x, start, len(more))
        return jax.lax.dynamic_update_slice_in_dim(x, more, start, 0)

    return _Gradients(
        add(gradients.hidden, share[:, None] * (above @ items.vectors), first_slot),
        add(gradients.vectors, above.T @ (share[:, None] * block.hidden), first_item),
        add(gradients.bias, share @ above, first_item),
    )


def _without_labels(
    gradients: _Gradients,
    slots: _Slots,
    of_labels: _Labels,
    found: _Softmax,
    held: _Held | None,
    total: jax.Array,
) -> _Gradients:
    """Add the label terms of the gradients: `-weight` per label score, or `(p - 1) * weight`.

    The second form applies if own items were left out of the softmax, labels among them.
    """
    share = -slots.weights / total
    if held is not None:
        share *= 1 - jnp.exp(of_labels.scores - found.highest) / found.total
    share = jnp.where(slots.weights == 0, 0, share)
    return _Gradients(
        gradients.hidden + share[:, None] * of_labels.vectors,
        gradients.vectors.at[of_labels.rows].add(share[:, None] * slots.hidden, mode="drop"),
        gradients.bias.at[of_labels.rows].add(share, mode="drop"),
    )


def _in_use_first(slots: _Slots, blocks: int) -> tuple[_Slots, jax.Array, _Cut]:
    """Move used slots to the front and pad to whole blocks; return slots, order and block sizes.

    A single block is left unchanged.
    """
    count = len(slots.labels)
    if blocks == 1:
        return slots, jnp.arange(count), _Cut(count, 1)
    order = jnp.argsort(slots.weights == 0, stable=True)
    slots = _Slots(*(x[order] for x in slots))
    size = _block_size(count, blocks)
    padding = padded_slots(count, blocks) - count
    padded = (jnp.pad(x, ((0, padding),) + ((0, 0),) * (x.ndim - 1)) for x in slots)
    return _Slots(*padded), order, _Cut(size, -(-(slots.weights != 0).sum() // size))


def _block_size(slots: int, blocks: int) -> int:
    return -(-slots // (blocks * _SMALLEST_BLOCK)) * _SMALLEST_BLOCK


def padded_slots(slots: int, blocks: int = BLOCKS) -> int:
    """A device's number of slots, rounded up to whole blocks."""
    size = _block_size(slots, blocks)
    return -(-slots // size) * size


def _over_blocks(cut: _Cut, body: Callable[[Any, Arrays], Arrays], start: Arrays) -> Arrays:
    """Run `body(number, carry)` for every block with used slots."""
    if isinstance(cut.in_use, int):
        return body(0, start)
    return jax.lax.fori_loop(0, cut.in_use, body, start)


def _block(arrays: Arrays, number: Number, cut: _Cut) -> Arrays:
    return jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, number * cut.size, cut.size), arrays
    )


def _local_items(vectors: jax.Array, bias: jax.Array, in_softmax: jax.Array) -> _Items:
    in_use = jnp.where(in_softmax, bias, _OUT_OF_SOFTMAX)
    return _Items(vectors, in_use, first_local_item(len(bias)))


def _held(
    histories: Histories | None, slots: int, max_segments: int
) -> tuple[jax.Array, _Held | None]:
    """The index of each slot's history, `[n]`, and the items that a device's histories hold."""
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
    """Items with the mask `held`: which history holds which of them."""
    if held is None:
        return items
    size = len(items.bias)
    place = held.tokens - items.first
    place = jnp.where(place < 0, size, place)
    none = jnp.zeros((held.total, size), bool)
    return items._replace(held=none.at[held.histories, place].set(True, mode="drop"))


def _chunk(items: _Items, held: _Held | None, index: jax.Array, chunk: int) -> _Items:
    """Chunk number `index` of a device's items.

    All chunks have the same size, so the last one may start with rows of the chunk before it. These
    rows are left out of its softmax, so that they do not count twice.
    """
    rows = len(items.bias)
    size = -(-rows // number_of_chunks(rows, chunk))
    start = jnp.minimum(index * size, rows - size)
    vectors, bias = (
        jax.lax.dynamic_slice_in_dim(x, start, size) for x in (items.vectors, items.bias)
    )
    new = start + jnp.arange(size) >= index * size
    bias = jnp.where(new, bias, _OUT_OF_SOFTMAX)
    return _marked(_Items(vectors, bias, items.first + start), held)


def _total(weights: jax.Array) -> jax.Array:
    """The sum of weights over all devices, or 1 if it is 0."""
    total = sum_over_rows(weights.sum())
    return jnp.where(total > 0, total, 1.0)


def number_of_chunks(items: int, chunk: int) -> int:
    """The smallest number of chunks of at most `chunk` items."""
    return -(-items // chunk)
