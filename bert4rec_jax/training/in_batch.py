"""Sampled softmax over targets of the same batch, with logQ correction.

    loss_s = -log( e^z(s, y_s) / (e^z(s, y_s) + sum_c e^z(s, c) / E_c) )
    z(s, i) = h_s . v_i + b_i

The negatives c are targets of other histories in the batch. Popular items are targets more often,
so without a correction they would be pushed down for being popular. Dividing by E_i, the expected
number of times that item i is among the negatives, corrects this: the expectation of the sum is
that over all items (logQ correction; Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large
Corpus Item Recommendations", RecSys 2019). The target is not drawn, it is always there once, so its
own term is not divided (Khrylchenko et al., "Correcting the LogQ Correction", RecSys 2025).
Additional negatives may be drawn uniformly from the catalog; E_i includes them (Yang et al.,
"Mixed Negative Sampling for Learning Two-tower Neural Networks in Recommendations", WWW 2020).
Negatives that occur in a slot's own history, the target included, are accidental hits and are left
out for that slot. If items can be chosen again (`data.repeats`), only the target is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from bert4rec_jax.training.slots import Slots

_LARGEST = 1 << 26  # most logits in memory at once: 256 MiB
_NONE = -1e30


@dataclass(frozen=True)
class InBatch:
    """How negatives are drawn.

    Attributes:
      negatives: maximum number of targets of the batch used as negatives, shared by all slots.
      uniform: number of additional negatives drawn uniformly from the catalog.
      max_segments: maximum number of histories in a row of the batch.
      own: whether the other items of a slot's own history may be its negatives.
    """

    negatives: int
    uniform: int
    max_segments: int
    own: bool = False


def in_batch_cross_entropy(
    key: jax.Array,
    slots: Slots,
    vectors: jax.Array,
    bias: jax.Array,
    target_share: jax.Array,
    drawable: jax.Array,
    how: InBatch,
) -> jax.Array:
    """The weighted mean of `loss_s` over all slots; 0 if every weight is 0.

    Args:
      key: random key for drawing the negatives.
      slots: the slots of a batch.
      vectors: `[V, D]` float32 item vectors.
      bias: `[V]` float32.
      target_share: `[V]` float32, Q: how often each item is a target, as a share of all targets.
      drawable: `[V]` bool, the items that uniform negatives are drawn from.
      how: how negatives are drawn.

    Returns:
      A float32 scalar, differentiable in `slots.hidden`, `vectors` and `bias`.
    """
    from_batch, from_catalog = jax.random.split(key)
    candidates, in_use = _targets(from_batch, slots, how.negatives)
    expected = in_use.sum() * target_share
    if how.uniform:
        drawn = _uniformly(from_catalog, drawable, how.uniform)
        candidates = jnp.concatenate([candidates, drawn])
        in_use = jnp.concatenate([in_use, jnp.ones(how.uniform, bool)])
        expected += how.uniform * drawable / drawable.sum()
    offset = bias - jnp.log(jnp.maximum(expected, 1e-30))
    candidate_vectors, candidate_offset = vectors[candidates], offset[candidates]
    candidate_offset = jnp.where(in_use, candidate_offset, _NONE)
    held = None if how.own else _held(slots, candidates, how.max_segments)

    @partial(jax.checkpoint, prevent_cse=False)
    def losses(columns: tuple[jax.Array, ...]) -> jax.Array:
        hidden, labels, segments = columns  # [n, B, ...]
        label_logit = (hidden * vectors[labels]).sum(-1) + bias[labels]
        logits = jnp.einsum("nbd,cd->nbc", hidden, candidate_vectors) + candidate_offset
        if held is None:
            hit = labels[:, :, None] == candidates
        else:
            hit = jnp.take_along_axis(held[None], segments[:, :, None, None] - 1, axis=2)[:, :, 0]
        logits = jnp.where(hit, _NONE, logits)
        normaliser = jnp.logaddexp(jax.nn.logsumexp(logits, axis=-1), label_logit)
        return normaliser - label_logit

    rows, count = slots.labels.shape
    at_once = max(1, _LARGEST // (rows * len(candidates)))
    by_column = jax.tree.map(
        lambda x: x.swapaxes(0, 1), (slots.hidden, slots.labels, jnp.maximum(slots.segments, 1))
    )
    if at_once >= count:
        found = losses(by_column)
    else:
        found = jax.lax.map(
            lambda one: losses(jax.tree.map(lambda x: x[None], one))[0],
            by_column,
            batch_size=at_once,
        )
    weights = slots.weights.swapaxes(0, 1)
    total = weights.sum()
    mean: jax.Array = (weights * found).sum() / jnp.where(total > 0, total, 1.0)
    return mean


def _targets(key: jax.Array, slots: Slots, most: int) -> tuple[jax.Array, jax.Array]:
    """Draw the labels of at most `most` used slots without replacement.

    Returns:
      `[C]` tokens, and `[C]` bool: false where there were fewer used slots than that.
    """
    in_use = (slots.weights > 0).reshape(-1)
    lots = jnp.where(in_use, jax.random.uniform(key, in_use.shape), -1.0)
    drawn, chosen = jax.lax.top_k(lots, min(most, len(lots)))
    return slots.labels.reshape(-1)[chosen], drawn >= 0


def _uniformly(key: jax.Array, drawable: jax.Array, count: int) -> jax.Array:
    """Draw `count` tokens with replacement from those where `drawable` is true."""
    through = jnp.cumsum(drawable)
    place = jax.random.randint(key, (count,), 1, through[-1] + 1)
    return jnp.searchsorted(through, place)


def _held(slots: Slots, candidates: jax.Array, max_segments: int) -> jax.Array:
    """`[B, G, C]` bool: which candidates occur in each of the G histories of a row."""
    same = slots.tokens[:, :, None] == candidates
    number = jnp.arange(1, max_segments + 1)
    inside = slots.token_segments[:, :, None] == number
    return jnp.einsum("blg,blc->bgc", inside.astype(jnp.float32), same.astype(jnp.float32)) > 0
