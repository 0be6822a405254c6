"""Tiling: how a device cuts its slots into blocks, and its shard of the catalog into chunks.

Used slots are moved to the front, so that only the blocks with used slots have to be computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from bert4rec_jax.training.slots import Slots

BLOCKS = 8  # enough that the last used block has few unused slots
OUT_OF_SOFTMAX = -1e30
_SMALLEST_BLOCK = 128  # slots; enough for efficient matrix products

Arrays = TypeVar("Arrays")
Number = jax.Array | int


class Queries(NamedTuple):
    """A device's n slots, or a block of them.

    Attributes:
      hidden: `[n, D]`.
      labels, weights: `[n]`.
      histories: `[n]` number of each slot's history among those of this device, from 0.
    """

    hidden: jax.Array
    labels: jax.Array
    weights: jax.Array
    histories: jax.Array


class Cut(NamedTuple):
    """Slots per block, and number of blocks with used slots (int 1 for a single block)."""

    size: int
    in_use: Number


class Held(NamedTuple):
    """Pairs of a history and an item that it holds, and the number H of histories.

    Attributes:
      histories, tokens: of each pair; the history is H where there is none.
      total: H.
    """

    histories: jax.Array
    tokens: jax.Array
    total: int

    def among(self, first: Number, size: int) -> jax.Array:
        """`[H, size]` bool: which history holds which of the items from token `first` on."""
        place = self.tokens - first
        place = jnp.where(place < 0, size, place)
        none = jnp.zeros((self.total, size), bool)
        return none.at[self.histories, place].set(True, mode="drop")


class Items(NamedTuple):
    """A device's shard of the catalog, or a chunk of it, of C items.

    Attributes:
      vectors: `[C, D]`.
      bias: `[C]`, OUT_OF_SOFTMAX for items that are not in the softmax.
      first: token of the first item.
      held: the items of each history, which are left out of the softmax of its slots; or None.
    """

    vectors: jax.Array
    bias: jax.Array
    first: Number
    held: Held | None

    def barred(self) -> jax.Array | None:
        """`[H, C]` bool: which items are left out for each history; None if none is for any."""
        return None if self.held is None else self.held.among(self.first, len(self.bias))


def queries_of(slots: Slots, max_segments: int) -> Queries:
    """A device's slots in one row."""
    first = jnp.arange(len(slots.labels))[:, None] * max_segments - 1
    return Queries(
        slots.hidden.reshape(-1, slots.hidden.shape[-1]),
        slots.labels.reshape(-1),
        slots.weights.reshape(-1),
        jnp.maximum((first + slots.segments).reshape(-1), 0),
    )


def held_by(slots: Slots, max_segments: int) -> Held:
    """The items that the histories of a device's rows hold."""
    rows = len(slots.tokens)
    first = jnp.arange(rows)[:, None] * max_segments - 1
    of_items = jnp.where(
        slots.token_segments > 0, first + slots.token_segments, rows * max_segments
    )
    return Held(of_items.reshape(-1), slots.tokens.reshape(-1), rows * max_segments)


def used_first(queries: Queries, blocks: int) -> tuple[Queries, jax.Array, Cut]:
    """Move used slots to the front and pad to whole blocks; return them, their order and the cut.

    A single block is left unchanged.
    """
    count = len(queries.labels)
    if blocks == 1:
        return queries, jnp.arange(count), Cut(count, 1)
    order = jnp.argsort(queries.weights == 0, stable=True)
    queries = Queries(*(x[order] for x in queries))
    size = _block_size(count, blocks)
    padding = padded_slots(count, blocks) - count
    padded = (jnp.pad(x, ((0, padding),) + ((0, 0),) * (x.ndim - 1)) for x in queries)
    return Queries(*padded), order, Cut(size, -(-(queries.weights != 0).sum() // size))


def _block_size(slots: int, blocks: int) -> int:
    return -(-slots // (blocks * _SMALLEST_BLOCK)) * _SMALLEST_BLOCK


def padded_slots(slots: int, blocks: int = BLOCKS) -> int:
    """A device's number of slots, rounded up to whole blocks."""
    size = _block_size(slots, blocks)
    return -(-slots // size) * size


def over_blocks(cut: Cut, body: Callable[[Any, Arrays], Arrays], start: Arrays) -> Arrays:
    """Run `body(number, carry)` for every block with used slots."""
    if isinstance(cut.in_use, int):
        return body(0, start)
    return jax.lax.fori_loop(0, cut.in_use, body, start)


def block_of(arrays: Arrays, number: Number, cut: Cut) -> Arrays:
    """Block number `number` of arrays with a row per slot."""
    return jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, number * cut.size, cut.size), arrays
    )


def chunk_of(items: Items, index: jax.Array, chunk: int) -> Items:
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
    bias = jnp.where(new, bias, OUT_OF_SOFTMAX)
    return Items(vectors, bias, items.first + start, items.held)


def number_of_chunks(items: int, chunk: int) -> int:
    """The smallest number of chunks of at most `chunk` items."""
    return -(-items // chunk)
