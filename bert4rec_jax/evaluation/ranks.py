"""Ranks and top-k over the whole catalog, on device: the rule for ties.

The rank of a target is `1 + #{j != target : j eligible and not (s_j < s_target)}`: ties count
against the model, so a constant scorer gains nothing. Items that are excluded, such as those the
user has seen, are not eligible. Lists are sorted by score, then by token. An item that the model
cannot score has the score -inf; all other scores have to be finite.

The catalog is processed in chunks, in two passes (so that a target's score comes from the same
matrix product as all others), and may be sharded over several devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bert4rec_jax.evaluation.lift import BOOSTS, Boosts, gains
from bert4rec_jax.sharding import (
    Along,
    first_local_item,
    gather_over_items,
    max_over_items,
    over_shards,
    sum_over_items,
)

_BLOCK = 64  # scores per block, see `largest`


class Ranked(NamedTuple):
    """The ranks of the targets, and the recommended items.

    Attributes:
      ranks: `[B]` int32, 1 is best.
      top: `[B, k]` int32 tokens, best first; padded with PAD if fewer than k items are eligible.
      scores: `[B, k]` float32 scores of `top`, -inf for PAD.
      broken: `[B]` bool, true if the score of any known item is not finite.
    """

    ranks: jax.Array
    top: jax.Array
    scores: jax.Array
    broken: jax.Array


def rank_by_vectors(
    hidden: jax.Array,
    vectors: jax.Array,
    bias: jax.Array,
    targets: jax.Array,
    excluded: jax.Array,
    is_item: jax.Array,
    known: jax.Array,
    among: jax.Array | None = None,
    *,
    top: int,
    chunk: int,
    boosts: Boosts | None = None,
) -> Ranked:
    """Rank by `hidden @ vectors.T + bias`, plus the covisitation boosts if given.

    Args:
      hidden: `[B, D]` float32, one vector per history.
      vectors: `[V, D]` float32 item vectors.
      bias: `[V]` float32.
      targets: `[B]` int tokens.
      excluded: `[B, S]` int tokens that may not be recommended, padded with PAD.
      is_item: `[V]` bool, false for PAD, MASK and padded rows.
      known: `[V]` bool, false for items that the model cannot score.
      among: `[B, C]` int tokens, padded with PAD: the only items to rank; None for all.
      top: length k of the lists.
      chunk: maximum number of items scored at once, per device.
      boosts: items whose scores are raised, see `evaluation.lift`; or None.
    """

    def local(
        hidden: jax.Array,
        vectors: jax.Array,
        bias: jax.Array,
        boosts: Boosts | None,
        *rest: jax.Array,
    ) -> Ranked:
        size = _chunk_size(vectors.shape[0], chunk)
        offset = first_local_item(vectors.shape[0])

        def scores(start: jax.Array) -> jax.Array:
            part = jax.lax.dynamic_slice_in_dim(vectors, start, size)
            found = _exact(hidden, part) + jax.lax.dynamic_slice_in_dim(bias, start, size)
            return found if boosts is None else found + gains(boosts, offset + start, size)

        return _rank(scores, *rest, items=vectors.shape[0], size=size, top=top)

    inputs = (
        Along.ROWS,
        Along.ITEMS,
        Along.ITEMS,
        None if boosts is None else BOOSTS,
        Along.ROWS,
        Along.ROWS,
        Along.ITEMS,
        Along.ITEMS,
        Along.ROWS,
    )
    ranked: Ranked = over_shards(local, inputs, _OUTPUTS)(
        hidden, vectors, bias, boosts, targets, excluded, is_item, known, among
    )
    return ranked


def rank_by_scores(
    scores: jax.Array,
    targets: jax.Array,
    excluded: jax.Array,
    is_item: jax.Array,
    known: jax.Array,
    among: jax.Array | None = None,
    *,
    top: int,
) -> Ranked:
    """Rank by given `[B, V]` scores, such as a baseline's; otherwise as `rank_by_vectors`."""

    def local(scores: jax.Array, *rest: jax.Array) -> Ranked:
        items = scores.shape[1]
        return _rank(lambda _: scores, *rest, items=items, size=items, top=top)

    inputs = (
        Along.ROWS_BY_ITEMS,
        Along.ROWS,
        Along.ROWS,
        Along.ITEMS,
        Along.ITEMS,
        Along.ROWS,
    )
    ranked: Ranked = over_shards(local, inputs, _OUTPUTS)(
        scores, targets, excluded, is_item, known, among
    )
    return ranked


def best_items(
    scores: jax.Array, excluded: jax.Array, listed: jax.Array, *, top: int
) -> tuple[jax.Array, jax.Array]:
    """The top-k items of each row, without a target to rank.

    Args:
      scores: `[B, V]` float32, for the whole catalog.
      excluded: `[B, S]` int tokens that may not be listed, padded with PAD.
      listed: `[V]` bool, true for items that may be listed.
      top: length k of the lists, at most V.

    Returns:
      `[B, k]` float32 scores, best first, and `[B, k]` int32 tokens; padded with -inf and PAD if
      fewer than k items are eligible.
    """
    eligible = listed & ~_contains(excluded, scores.shape[1])
    best, tokens = jax.lax.top_k(jnp.where(eligible, scores, -jnp.inf), top)
    return best, jnp.where(best > -jnp.inf, tokens, 0)


def best_by_vectors(
    hidden: jax.Array,
    vectors: jax.Array,
    bias: jax.Array,
    excluded: jax.Array,
    listed: jax.Array,
    *,
    top: int,
    chunk: int,
    recall: float = 1.0,
    boosts: Boosts | None = None,
) -> tuple[jax.Array, jax.Array]:
    """As `best_items`, by `hidden @ vectors.T + bias`, without storing all `[B, V]` scores.

    Args:
      hidden: `[B, D]` float32, one vector per history.
      vectors: `[V, D]` float32 item vectors; they may be sharded over several devices, each of
        which sends only its `top` best items.
      bias: `[V]` float32.
      excluded: `[B, S]` int tokens that may not be listed, padded with PAD.
      listed: `[V]` bool, true for items that may be listed.
      top: length k of the lists, at most the number of items per device.
      chunk: maximum number of items scored at once, per device.
      recall: expected share of a chunk's best items that is found; below 1,
        `jax.lax.approx_max_k` is used (faster on TPU), and 1 is exact.
      boosts: see `rank_by_vectors`.
    """

    def local(
        hidden: jax.Array,
        vectors: jax.Array,
        bias: jax.Array,
        excluded: jax.Array,
        listed: jax.Array,
        boosts: Boosts | None,
    ) -> tuple[jax.Array, jax.Array]:
        items = vectors.shape[0]
        size = _chunk_size(items, chunk)
        offset = first_local_item(items)

        def better(number: int | jax.Array, best: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            start = jnp.asarray(number) * size
            part, part_bias, part_listed = (
                jax.lax.dynamic_slice_in_dim(x, start, size) for x in (vectors, bias, listed)
            )
            eligible = part_listed & ~_contains(excluded - offset - start, size)
            scores = _exact(hidden, part) + part_bias
            scores = scores if boosts is None else scores + gains(boosts, offset + start, size)
            scores = jnp.where(eligible, scores, -jnp.inf)
            if recall < 1:
                found, where = jax.lax.approx_max_k(scores, min(top, size), recall_target=recall)
            else:
                found, where = largest(scores, min(top, size))
            return _best_of(
                jnp.concatenate([best[0], found], -1),
                jnp.concatenate([best[1], offset + start + where], -1),
                top,
            )

        rows = hidden.shape[0]
        none = (jnp.full((rows, top), -jnp.inf), jnp.zeros((rows, top), jnp.int32))
        scores, tokens = jax.lax.fori_loop(0, items // size, better, none)
        scores, tokens = _best_of(gather_over_items(scores), gather_over_items(tokens), top)
        return scores, jnp.where(scores > -jnp.inf, tokens, 0)

    inputs = (
        Along.ROWS,
        Along.ITEMS,
        Along.ITEMS,
        Along.ROWS,
        Along.ITEMS,
        None if boosts is None else BOOSTS,
    )
    best: tuple[jax.Array, jax.Array] = over_shards(local, inputs, (Along.ROWS, Along.ROWS))(
        hidden, vectors, bias, excluded, listed, boosts
    )
    return best


def _exact(hidden: jax.Array, vectors: jax.Array) -> jax.Array:
    """`hidden @ vectors.T` in full float32; by default, GPUs and TPUs use fewer bits."""
    return jnp.matmul(hidden, vectors.T, precision="highest")


def largest(scores: jax.Array, top: int) -> tuple[jax.Array, jax.Array]:
    """As `jax.lax.top_k`, including the order of ties, but without sorting long rows as a whole.

    The `top` largest scores of a row are in the `top` blocks with the largest maxima, so only these
    blocks are searched. Of equal scores the first one wins, and likewise for blocks.

    Args:
      scores: `[B, N]` float32.
      top: k, at most N.

    Returns:
      `[B, k]` scores, largest first, and `[B, k]` int32 columns.
    """
    rows, columns = scores.shape
    if columns < 4 * _BLOCK * top:
        best, where = jax.lax.top_k(scores, top)
        return best, where
    filled = jnp.pad(scores, ((0, 0), (0, -columns % _BLOCK)), constant_values=-jnp.inf)
    blocks = filled.reshape(rows, -1, _BLOCK)
    _, chosen = jax.lax.top_k(blocks.max(-1), top)
    chosen = jnp.sort(chosen, axis=1)  # keeps equal scores in column order
    kept = jnp.take_along_axis(blocks, chosen[:, :, None], axis=1).reshape(rows, -1)
    best, where = jax.lax.top_k(kept, top)
    column = jnp.take_along_axis(chosen, where // _BLOCK, axis=1) * _BLOCK + where % _BLOCK
    return best, column


def list_order(
    scores: npt.NDArray[np.float32], tokens: npt.NDArray[np.int32], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.intp]:
    """Sort order of the items of several lists, on the host: by row, then score, then token.

    One sort of whole numbers, which hold the row and the bits of the score, takes a fraction of the
    time of `np.lexsort`. No score may be NaN.
    """
    bits = (-scores).view(np.int32).astype(np.int64)
    rows = rows.astype(np.int64) << 32
    keys = rows + np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)  # -0.0 is 0.0
    places = rows + tokens
    if (places[1:] > places[:-1]).all():
        return np.argsort(keys, kind="stable")
    by_token = np.argsort(places, kind="stable")
    return by_token[np.argsort(keys[by_token], kind="stable")]


_OUTPUTS: Any = Ranked(*[cast(Any, Along.ROWS)] * 4)


def _rank(
    scores_from: Callable[[jax.Array], jax.Array],
    targets: jax.Array,
    excluded: jax.Array,
    is_item: jax.Array,
    known: jax.Array,
    among: jax.Array | None = None,
    *,
    items: int,
    size: int,
    top: int,
) -> Ranked:
    """Rank over this device's items and merge the results of all devices."""
    rows = targets.shape[0]
    offset = first_local_item(items)

    def chunk_at(number: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        start = number * size
        usable = jax.lax.dynamic_slice_in_dim(known, start, size)
        scores = scores_from(start)
        broken = (~jnp.isfinite(scores) & usable).any(-1)
        scores = jnp.where(usable, scores, -jnp.inf)
        is_target = targets[:, None] == offset + start + jnp.arange(size)
        return start, scores, is_target, broken

    def find(number: int | jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        target_score, broken = carry
        _, scores, is_target, broken_here = chunk_at(jnp.asarray(number))
        here = jnp.where(is_target, scores, 0).sum(-1)
        return target_score + here, broken | broken_here

    count = items // size
    target_score, broken = jax.lax.fori_loop(
        0, count, find, (jnp.zeros(rows), jnp.zeros(rows, bool))
    )
    target_score = sum_over_items(target_score)

    def compare(
        number: int | jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        ahead, best, best_tokens = carry
        start, scores, is_target, _ = chunk_at(jnp.asarray(number))
        eligible = jax.lax.dynamic_slice_in_dim(is_item, start, size)
        eligible = eligible & ~_contains(excluded - offset - start, size)
        if among is not None:
            eligible &= _contains(among - offset - start, size)
        not_below = ~(scores < target_score[:, None])
        ahead += (eligible & ~is_target & not_below).sum(-1)
        listed = jnp.where(eligible, scores, -jnp.inf)
        part, where = largest(listed, min(top, size))
        return ahead, *_best_of(
            jnp.concatenate([best, part], -1),
            jnp.concatenate([best_tokens, offset + start + where], -1),
            top,
        )

    ahead, best, best_tokens = jax.lax.fori_loop(
        0,
        count,
        compare,
        (
            jnp.zeros(rows, jnp.int32),
            jnp.full((rows, top), -jnp.inf),
            jnp.zeros((rows, top), jnp.int32),
        ),
    )
    best, best_tokens = _best_of(gather_over_items(best), gather_over_items(best_tokens), top)
    return Ranked(
        ranks=1 + sum_over_items(ahead),
        top=jnp.where(best > -jnp.inf, best_tokens, 0),
        scores=best,
        broken=max_over_items(broken.astype(jnp.int32)) > 0,
    )


def _best_of(scores: jax.Array, tokens: jax.Array, top: int) -> tuple[jax.Array, jax.Array]:
    """The `top` best columns; of equal scores the first column, which has the lower token."""
    best, where = jax.lax.top_k(scores, top)
    return best, jnp.take_along_axis(tokens, where, axis=-1)


def _contains(indices: jax.Array, size: int) -> jax.Array:
    """Turn `[B, S]` indices into a `[B, size]` mask; indices outside `[0, size)` are ignored."""
    inside = jnp.where((indices >= 0) & (indices < size), indices, size)
    rows = jnp.arange(indices.shape[0])[:, None]
    return jnp.zeros((indices.shape[0], size), bool).at[rows, inside].set(True, mode="drop")


def _chunk_size(items: int, chunk: int) -> int:
    """The largest divisor of `items` that is at most `chunk`."""
    return next(size for size in range(min(items, chunk), 0, -1) if items % size == 0)
