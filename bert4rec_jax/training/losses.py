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

from dataclasses import dataclass
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
from bert4rec_jax.training.slots import Slots
from bert4rec_jax.training.tiling import (
    BLOCKS,
    OUT_OF_SOFTMAX,
    Cut,
    Items,
    Number,
    Queries,
    block_of,
    chunk_of,
    held_by,
    number_of_chunks,
    over_blocks,
    queries_of,
    used_first,
)


@dataclass(frozen=True)
class FullSoftmax:
    """The softmax over the whole catalog, and how it is computed.

    Attributes:
      chunk: maximum number of items scored at once, per device.
      max_segments: maximum number of histories in a row of the batch.
      own: whether the other items of a slot's own history are in its softmax. If not, its label
        must be one of them.
      blocks: number of blocks that a device's slots are split into; with several blocks, only those
        with used slots are computed.
    """

    chunk: int
    max_segments: int = 1
    own: bool = True
    blocks: int = BLOCKS


def cross_entropy(
    slots: Slots,
    vectors: jax.Array,
    bias: jax.Array,
    in_softmax: jax.Array,
    softmax: FullSoftmax,
) -> jax.Array:
    """The weighted mean of `-log p(label)` over all slots; 0 if every weight is 0.

    Args:
      slots: the slots of a batch.
      vectors: `[V, D]` float32 item vectors.
      bias: `[V]` float32.
      in_softmax: `[V]` bool, false for PAD, MASK, padded rows and items that are not trained on.
      softmax: which items compete, and how this is computed.

    Returns:
      A float32 scalar, differentiable in `slots.hidden`, `vectors` and `bias`.
    """
    inputs = Along.ROWS, Along.ITEMS, Along.ITEMS, Along.ITEMS
    gradients = _Gradients._make([Along.ROWS, Along.ITEMS, Along.ITEMS])

    @jax.custom_vjp
    def loss(*arrays: Any) -> jax.Array:
        def local(*shards: Any) -> jax.Array:
            return _loss(_part(softmax, *shards), softmax)

        return over_shards(local, inputs, Along.NEITHER)(*arrays)

    def forward(*arrays: Any) -> tuple[jax.Array, _Gradients]:
        def local(slots: Slots, *shards: Any) -> tuple[jax.Array, _Gradients]:
            value, found = _loss_and_gradients(_part(softmax, slots, *shards), softmax)
            return value, found._replace(hidden=found.hidden.reshape(slots.hidden.shape))

        return over_shards(local, inputs, (Along.NEITHER, gradients))(*arrays)

    def backward(found: _Gradients, upstream: jax.Array) -> tuple[Any, ...]:
        hidden, vectors, bias = (upstream * gradient for gradient in found)
        others = [None] * (len(Slots._fields) - 1)
        return Slots._make([hidden, *others]), vectors, bias, None

    loss.defvjp(forward, backward)
    return loss(slots, vectors, bias, in_softmax)


class _Labels(NamedTuple):
    """The labels of a device's slots, or of a block, looked up in its shard of the catalog."""

    rows: jax.Array  # `[n]` row in this shard; one past its end for labels of other shards
    vectors: jax.Array  # `[n, D]`, 0 for labels of other shards
    scores: jax.Array  # `[n]`, summed over shards, so valid for all labels


class _Part(NamedTuple):
    """What one device computes: its slots, used ones first, against its shard of the catalog.

    Attributes:
      queries: the slots, padded to whole blocks.
      order: `[n]` where each of the n slots was before.
      cut: how the slots are split into blocks.
      items: the shard.
      labels: the slots' labels in the shard.
      total: the sum of weights over all devices, or 1 if it is 0.
    """

    queries: Queries
    order: jax.Array
    cut: Cut
    items: Items
    labels: _Labels
    total: jax.Array


class _Softmax(NamedTuple):
    """Running softmax of slots: maximum score, and sum of `exp(score - maximum)`; `[n]` each."""

    highest: jax.Array
    total: jax.Array


class _Gradients(NamedTuple):
    """Gradients with respect to the slots (ordered as `_Part`) and this shard of the catalog."""

    hidden: jax.Array
    vectors: jax.Array
    bias: jax.Array


def _part(
    softmax: FullSoftmax, slots: Slots, vectors: jax.Array, bias: jax.Array, in_softmax: jax.Array
) -> _Part:
    queries = queries_of(slots, softmax.max_segments)
    total = sum_over_rows(queries.weights.sum())
    queries, order, cut = used_first(queries, softmax.blocks)
    items = Items(
        vectors,
        jnp.where(in_softmax, bias, OUT_OF_SOFTMAX),
        first_local_item(len(bias)),
        None if softmax.own else held_by(slots, softmax.max_segments),
    )
    labels = _look_up(queries, items)
    return _Part(queries, order, cut, items, labels, jnp.where(total > 0, total, 1.0))


def _loss(part: _Part, softmax: FullSoftmax) -> jax.Array:
    return _mean(part, _overall(_softmax(part, softmax.chunk), part.labels, part.items))


def _loss_and_gradients(part: _Part, softmax: FullSoftmax) -> tuple[jax.Array, _Gradients]:
    if len(part.items.bias) <= softmax.chunk:
        found, gradients = _in_one_pass(part)
    else:
        found, gradients = _in_two_passes(part, softmax.chunk)
    gradients = _without_labels(gradients, part, found)
    slots = jnp.zeros_like(part.queries.hidden[: len(part.order)])
    in_order = slots.at[part.order].set(gradients.hidden[: len(part.order)])
    return _mean(part, found), _Gradients(
        sum_over_items(in_order),
        sum_over_rows(gradients.vectors),
        sum_over_rows(gradients.bias),
    )


def _in_one_pass(part: _Part) -> tuple[_Softmax, _Gradients]:
    """Softmax and gradients, without the labels' own terms; scores are computed only once."""
    cut, items, barred = part.cut, part.items, part.items.barred()

    def of_block(number: Number, carry: tuple[_Softmax, _Gradients]) -> tuple[_Softmax, _Gradients]:
        found, gradients = carry
        block, labels = block_of((part.queries, part.labels), number, cut)
        scores = _scores(block, items, barred)
        highest = scores.max(-1)
        above = jnp.exp(scores - highest[:, None])
        here = _overall(_Softmax(highest, above.sum(-1)), labels, items)
        share = block.weights / part.total * jnp.exp(highest - here.highest) / here.total
        gradients = _added(gradients, above, share, block, items, number * cut.size, 0)
        return _put(found, here, number * cut.size), gradients

    return over_blocks(cut, of_block, (_nothing(part), _no_gradients(part)))


def _in_two_passes(part: _Part, chunk: int) -> tuple[_Softmax, _Gradients]:
    """As `_in_one_pass`, for a catalog of several chunks; scores are computed twice."""
    cut = part.cut
    found = _overall(_softmax(part, chunk), part.labels, part.items)

    def of_chunk(index: jax.Array, gradients: _Gradients) -> _Gradients:
        items = chunk_of(part.items, index, chunk)
        barred = items.barred()

        def of_block(number: Number, gradients: _Gradients) -> _Gradients:
            block, here = block_of((part.queries, found), number, cut)
            above = jnp.exp(_scores(block, items, barred) - here.highest[:, None])
            share = block.weights / part.total / here.total
            first = items.first - part.items.first
            return _added(gradients, above, share, block, items, number * cut.size, first)

        return over_blocks(cut, of_block, gradients)

    count = number_of_chunks(len(part.items.bias), chunk)
    return found, jax.lax.fori_loop(0, count, of_chunk, _no_gradients(part))


def _softmax(part: _Part, chunk: int) -> _Softmax:
    """The softmax of all slots over this device's shard of the catalog, chunk by chunk."""
    cut = part.cut

    def of_chunk(index: jax.Array, known: _Softmax) -> _Softmax:
        items = chunk_of(part.items, index, chunk)
        barred = items.barred()

        def of_block(number: Number, known: _Softmax) -> _Softmax:
            block, before = block_of((part.queries, known), number, cut)
            scores = _scores(block, items, barred)
            highest = jnp.maximum(before.highest, scores.max(-1))
            total = before.total * jnp.exp(before.highest - highest)
            total += jnp.exp(scores - highest[:, None]).sum(-1)
            return _put(known, _Softmax(highest, total), number * cut.size)

        return over_blocks(cut, of_block, known)

    count = number_of_chunks(len(part.items.bias), chunk)
    return jax.lax.fori_loop(0, count, of_chunk, _nothing(part))


def _nothing(part: _Part) -> _Softmax:
    slots = len(part.queries.labels)
    return _Softmax(jnp.full(slots, OUT_OF_SOFTMAX), jnp.zeros(slots))


def _no_gradients(part: _Part) -> _Gradients:
    given = part.queries.hidden, part.items.vectors, part.items.bias
    return _Gradients(*map(jnp.zeros_like, given))


def _put(known: _Softmax, block: _Softmax, start: Number) -> _Softmax:
    return jax.tree.map(
        lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, start, 0), known, block
    )


def _overall(local: _Softmax, labels: _Labels, items: Items) -> _Softmax:
    """Combine the softmax over all shards; if a history's items were left out, add the label."""
    highest = local.highest
    if items.held is not None:
        highest = jnp.maximum(highest, labels.scores)
    highest = max_over_items(highest)
    total = sum_over_items(local.total * jnp.exp(local.highest - highest))
    if items.held is not None:
        total += jnp.exp(labels.scores - highest)
    return _Softmax(highest, total)


def _mean(part: _Part, found: _Softmax) -> jax.Array:
    """The weighted mean over all devices; losses of weight 0 may not be finite and are ignored."""
    weights = part.queries.weights
    losses = found.highest + jnp.log(found.total) - part.labels.scores
    return sum_over_rows(jnp.where(weights == 0, 0, weights * losses).sum()) / part.total


def _scores(block: Queries, items: Items, barred: jax.Array | None) -> jax.Array:
    """Scores of a chunk, `[n, C]`; OUT_OF_SOFTMAX for items that are `barred` for a history."""
    scores = block.hidden @ items.vectors.T + items.bias
    return scores if barred is None else jnp.where(barred[block.histories], OUT_OF_SOFTMAX, scores)


def _look_up(queries: Queries, items: Items) -> _Labels:
    """Look up the labels of slots in this device's shard of the catalog."""
    rows, beyond = queries.labels - items.first, len(items.bias)
    rows = jnp.where((rows >= 0) & (rows < beyond), rows, beyond)
    vectors = items.vectors.at[rows].get(mode="fill", fill_value=0)
    bias = items.bias.at[rows].get(mode="fill", fill_value=0)
    return _Labels(rows, vectors, sum_over_items((queries.hidden * vectors).sum(-1) + bias))


def _added(
    gradients: _Gradients,
    above: jax.Array,
    share: jax.Array,
    block: Queries,
    items: Items,
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


def _without_labels(gradients: _Gradients, part: _Part, found: _Softmax) -> _Gradients:
    """Add the label terms of the gradients: `-weight` per label score, or `(p - 1) * weight`.

    The second form applies if own items were left out of the softmax, labels among them.
    """
    queries, labels = part.queries, part.labels
    share = -queries.weights / part.total
    if part.items.held is not None:
        share *= 1 - jnp.exp(labels.scores - found.highest) / found.total
    share = jnp.where(queries.weights == 0, 0, share)
    return _Gradients(
        gradients.hidden + share[:, None] * labels.vectors,
        gradients.vectors.at[labels.rows].add(share[:, None] * queries.hidden, mode="drop"),
        gradients.bias.at[labels.rows].add(share, mode="drop"),
    )
