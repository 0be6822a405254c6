"""Traced: the functions of a bundle, for any number of rows, items and candidates, and any device.

Dimensions: b rows, l items of history, c candidates, e excluded items, k items of a list; D width,
V rows of the item table, L positions of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export

from bert4rec_jax.data.batch import SECONDS_PER_DAY
from bert4rec_jax.data.catalog import MASK, PAD
from bert4rec_jax.data.thumbs import NONE
from bert4rec_jax.evaluation.lift import gains, gains_at
from bert4rec_jax.evaluation.ranks import best_items
from bert4rec_jax.models.history import History
from bert4rec_jax.serving.weights import (
    Dtype,
    Vectors,
    boosts_of_params,
    packed,
    products,
    products_at,
    restored,
)

PLATFORMS = ("cpu", "cuda", "tpu")
SEPARATOR = "/"
_FRAMES = "jax_traceback_in_locations_limit"  # setting of JAX
_HISTORY = ("tokens", "thumbs")
_REST = {
    "item_vectors": (),
    "encode": _HISTORY,
    "score": ("bias", "known", *_HISTORY, "candidates"),
    "top_k": ("bias", "known", *_HISTORY, "excluded", "places"),
    "attend": (*_HISTORY, "slots"),
}
# Last arguments of all but `item_vectors`, for a model that uses user features or reads times; for
# `attend`, MASK has its own time in `times`.
_USERS, _TIMES = ("users",), ("times", "at")
# By path, as in the safetensors file: parameters, the items' content and covisitation.
Params = dict[str, jax.Array]
Items = tuple[Vectors, jax.Array, jax.Array]  # vectors [V, D], bias [V], known [V] bool


def by_path(variables: Any) -> dict[str, Any]:
    """Nested variables as one dict, with keys such as `params/item_table/embedding`."""
    flat: dict[str, Any] = flatten_dict(variables, sep=SEPARATOR)
    return flat


def model_inputs(
    tokens: jax.Array, thumbs: jax.Array, *, max_length: int, causal: bool
) -> tuple[History, jax.Array]:
    """Build the model's input from histories; serving does this nowhere else.

    As in `data.batch.inference_rows`, MASK is put where the next item would be. Example, L = 5: the
    history `7 8 0` becomes `7 8 M 0` at the positions `2 3 4 0`. The slot is 2, or 1 (the newest
    item) for a causal model.

    Args:
      tokens: `[b, l]` int32, the last items (at most L - 1), oldest first, padded with PAD.
      thumbs: `[b, l]` int8, `data.thumbs`.
      max_length: L.
      causal: whether the output is read at the newest item, not at MASK.

    Returns:
      The arguments of the model's `encode`: the history and `[b, 1]` slots.
    """
    lengths = (tokens != PAD).sum(axis=1, dtype=jnp.int32)[:, None]
    rows = jnp.concatenate([tokens, jnp.full_like(tokens[:, :1], PAD)], axis=1)
    columns = jnp.arange(rows.shape[1], dtype=jnp.int32)
    rows = jnp.where(columns == lengths, MASK, rows)
    slots = jnp.maximum(lengths - 1, 0) if causal else lengths
    thumbs = jnp.pad(thumbs, ((0, 0), (0, 1)))
    return as_read(rows, thumbs, max_length=max_length, causal=causal), slots


def as_read(rows: jax.Array, thumbs: jax.Array, *, max_length: int, causal: bool) -> History:
    """Build the model's input from rows that already contain MASK.

    The last column that is not PAD gets position L - 1.

    Args:
      rows: `[b, l]` int32, at most L columns, padded with PAD.
      thumbs: `[b, l]` int8, `data.thumbs`; ignored at PAD and MASK.
      max_length, causal: as for `model_inputs`.
    """
    used = rows != PAD
    lengths = used.sum(axis=1, dtype=jnp.int32)[:, None]
    positions = max_length - lengths + jnp.arange(rows.shape[1], dtype=jnp.int32)
    return History(
        rows,
        jnp.where(used & (rows != MASK), thumbs, NONE),
        jnp.where(used, positions, 0),
        used.astype(jnp.int32),
        jnp.full(rows.shape, causal),
    )


@dataclass(frozen=True)
class Serving:
    """The functions that serve a model; `trace` exports them.

    Attributes:
      model: a module with the methods `encode` and `item_vectors`.
      max_length: positions L of the model.
      causal: whether the output is read at the newest item (causal attention), not at a MASK.
      dtype: how weights are stored; see `serving.weights`.
      user_dim: columns G of user features; 0 for a model without them.

    The arguments `more` of the functions depend on the model. With user features they are
    `users [b, G]`. If it reads times, they are `times [b, l]` uint32, the seconds since 1970 of the
    items of a history, and `at [b, 1]`, those of the request. Otherwise there are none.
    """

    model: nn.Module
    max_length: int
    causal: bool
    dtype: Dtype = "float32"
    user_dim: int = 0

    @property
    def times(self) -> bool:
        """Whether the model reads times."""
        return bool(self.model.times)

    @property
    def more(self) -> tuple[str, ...]:
        """The names of the arguments `more`."""
        return _USERS if self.user_dim else _TIMES if self.times else ()

    def item_vectors(self, params: Params) -> tuple[Vectors, jax.Array]:
        """`[V, D]` vectors and `[V]` biases."""
        vectors, bias = self._apply(params, method="item_vectors")
        return packed(vectors, self.dtype), bias

    def encode(
        self,
        params: Params,
        tokens: jax.Array,
        thumbs: jax.Array,
        *more: jax.Array,
    ) -> jax.Array:
        """User vectors `[b, D]` of histories.

        A score is the dot product with an item's vector, plus the item's bias and its gain by
        covisitation (`boosts_of_params`).

        For an empty history, the model reads MASK alone. A causal model has never learnt MASK, so
        the user vector is zero: only the biases remain, which rank items about by popularity.
        """
        history, slots = model_inputs(
            tokens, thumbs, max_length=self.max_length, causal=self.causal
        )
        history = self._completed(history, *more)
        hidden = self._apply(params, history, slots, deterministic=True, method="encode")[:, 0]
        if self.causal:
            hidden = jnp.where((tokens != PAD).any(axis=1, keepdims=True), hidden, 0)
        return hidden

    def score(
        self,
        params: Params,
        items: Items,
        tokens: jax.Array,
        thumbs: jax.Array,
        candidates: jax.Array,
        *more: jax.Array,
    ) -> jax.Array:
        """`[b, c]` scores of `candidates [b, c]`; -inf where `known` is false, as for PAD."""
        vectors, bias, known = items
        hidden = self.encode(params, tokens, thumbs, *more)
        scores = products_at(hidden, vectors, candidates) + bias[candidates]
        boosts = boosts_of_params(params, tokens)
        if boosts is not None:
            scores += gains_at(boosts, candidates)
        return jnp.where(known[candidates], scores, -jnp.inf)

    def top_k(
        self,
        params: Params,
        items: Items,
        tokens: jax.Array,
        thumbs: jax.Array,
        excluded: jax.Array,
        places: jax.Array,
        *more: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """The best items of the catalog: `[b, k]` scores and tokens, -inf and PAD after the last.

        Args:
          params, items, tokens, thumbs: as above.
          excluded: `[b, e]` tokens that may not be listed, padded with PAD.
          places: `[k]` int8; its values are ignored, its length k is the length of lists.
          more: see `Serving`.
        """
        vectors, bias, known = items
        scores = products(self.encode(params, tokens, thumbs, *more), vectors) + bias
        boosts = boosts_of_params(params, tokens)
        if boosts is not None:
            scores += gains(boosts, 0, bias.shape[0])
        return best_items(scores, excluded, known, top=places.shape[0])

    def attend(
        self,
        params: Params,
        rows: jax.Array,
        thumbs: jax.Array,
        slots: jax.Array,
        *more: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Encode histories at any of their columns, with the attention weights from there.

        Args:
          params: as above.
          rows: `[b, l]` int32, l ≤ L, as for `as_read`.
          thumbs: `[b, l]` int8.
          slots: `[b, 1]` int32, the column to read: a MASK, or for a causal model the newest item,
            with MASK after it, which has the last position.
          more: as above, but without `at`: MASK has its own time in `times`.

        Returns:
          `[b, D]` vectors like those of `encode`, and `[b, layers, H, l]` attention weights; each
          row sums to 1.
        """
        history = as_read(rows, thumbs, max_length=self.max_length, causal=self.causal)
        history = self._completed(history, *more)
        hidden, sown = self._apply(
            params, history, slots, deterministic=True, method="encode", mutable=["intermediates"]
        )
        weights = [jnp.zeros((rows.shape[0], 0, self.model.heads, rows.shape[1]))]  # if no layers
        sown = sown.get("intermediates", {})
        names = [f"transformer_{layer}" for layer in range(self.model.layers)]
        for layer in filter(sown.__contains__, names):  # a model without attention has none
            every = sown[layer]["attention"]["weights"][0]
            # The last layer of BERT4Rec has queries at the slots only.
            asked = slots if every.shape[2] == history.tokens.shape[1] else jnp.zeros_like(slots)
            found = jnp.take_along_axis(every, asked[:, None, :, None], axis=2)
            weights.append(found.swapaxes(1, 2))
        return hidden[:, 0], jnp.concatenate(weights, axis=1)

    def _completed(self, history: History, *more: jax.Array) -> History:
        """The history with its arguments `more`."""
        if self.user_dim:
            return history._replace(users=more[0][:, None])
        return timed(history, *more) if self.times else history

    def _apply(self, params: Params, *arrays: Any, **options: Any) -> Any:
        variables = unflatten_dict(restored(params), sep=SEPARATOR)
        return self.model.apply(variables, *arrays, **options)


def timed(history: History, times: jax.Array, at: jax.Array | None = None) -> History:
    """A history, one per row, with the times of its items; see `data.batch.Batch`.

    Args:
      history: B histories of L columns.
      times: uint32 seconds since 1970 of the columns, `[B, L]`; or, with `at`, `[B, L - 1]`.
      at: `[B, 1]`, the time of MASK; None if it is in `times`.
    """
    if at is not None:
        times = jnp.where(history.tokens == MASK, at, jnp.pad(times, ((0, 0), (0, 1))))
    used = history.segments != 0
    day = jnp.uint32(SECONDS_PER_DAY)  # whole days and the rest, as float32 cannot hold the seconds
    days = (times // day).astype(jnp.float32) + (times % day).astype(jnp.float32) / day
    before = jnp.pad(times, ((0, 0), (1, 0)))[:, :-1]
    follows = used & (jnp.arange(times.shape[1]) > 0) & (times > before)
    since = jnp.where(follows, jnp.minimum(times - before, jnp.uint32(2**31 - 1)), 0)
    return history._replace(days=jnp.where(used, days, 0), since=since.astype(jnp.int32))


def trace(serving: Serving, params: Mapping[str, Any]) -> dict[str, export.Exported]:
    """Export the functions of a bundle for every platform, with the parameters as arguments.

    The length of histories is symbolic like the other sizes, so one function serves every bucket.
    With float32 weights, matrix products are computed in float32 on all platforms, as the evaluator
    does; with smaller weights, at each platform's default precision.

    Args:
      serving: the model.
      params: its variables by path, as they are stored.
    """
    shapes = {path: jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in params.items()}
    vectors, bias = jax.eval_shape(serving.item_vectors, shapes)
    items = (vectors, bias, jax.ShapeDtypeStruct(bias.shape, jnp.bool_))
    shorter = f"l <= {serving.max_length - 1}"
    listed = f"k <= {bias.shape[0]}"

    def traced(function: Callable[..., Any], *arguments: Any) -> export.Exported:
        precision = "highest" if serving.dtype == "float32" else "default"
        with jax.default_matmul_precision(precision), _without_callers():
            return export.export(jax.jit(function), platforms=PLATFORMS)(shapes, *arguments)

    def arrays(
        sizes: str, *dtypes: Any, where: Sequence[str], asked: bool = True
    ) -> list[jax.ShapeDtypeStruct]:
        if serving.user_dim:
            return _arrays(f"{sizes} b,{serving.user_dim}", *dtypes, jnp.float32, where=where)
        if serving.times:
            sizes, dtypes = f"{sizes} b,l" + " b,1" * asked, (*dtypes, *[jnp.uint32] * (1 + asked))
        return _arrays(sizes, *dtypes, where=where)

    return {
        "item_vectors": traced(serving.item_vectors),
        "encode": traced(serving.encode, *arrays("b,l b,l", jnp.int32, jnp.int8, where=[shorter])),
        "score": traced(
            serving.score,
            items,
            *arrays("b,l b,l b,c", jnp.int32, jnp.int8, jnp.int32, where=[shorter]),
        ),
        "top_k": traced(
            serving.top_k,
            items,
            *arrays(
                "b,l b,l b,e k", jnp.int32, jnp.int8, jnp.int32, jnp.int8, where=[shorter, listed]
            ),
        ),
        "attend": traced(
            serving.attend,
            *arrays(
                "b,l b,l b,1",
                jnp.int32,
                jnp.int8,
                jnp.int32,
                where=["l >= 2", f"l <= {serving.max_length}"],
                asked=False,
            ),
        ),
    }


@contextmanager
def _without_callers() -> Iterator[None]:
    """Leave out of exported programs which lines of which files called for them.

    So their bytes, and the fingerprint of their bundle, follow from the model alone. A version of
    JAX without this setting exports as it does.
    """
    before = getattr(jax.config, _FRAMES, None)
    if before is None:
        yield
        return
    jax.config.update(_FRAMES, 0)
    try:
        yield
    finally:
        jax.config.update(_FRAMES, before)


def _arrays(shapes: str, *dtypes: Any, where: Sequence[str]) -> list[jax.ShapeDtypeStruct]:
    """Arguments with symbolic shapes; `where` lists constraints on the symbols."""
    scope = export.SymbolicScope(where)
    return [
        jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), dtype)
        for shape, dtype in zip(shapes.split(), dtypes)
    ]


def signature(name: str, exported: export.Exported, more: Sequence[str] = ()) -> dict[str, Any]:
    """A function's arguments (after the parameters), results and platforms, as JSON values.

    `more` are the names of its arguments `more`; see `Serving`.
    """
    arguments, _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    avals = jax.tree.leaves(arguments[1:])
    rest = _REST[name]
    if rest:
        rest += tuple(more[:1] if name == "attend" else more)
    vectors = ("vectors", "vectors_scale")[: len(avals) - len(rest)]
    return {
        "arguments": {
            argument: aval.str_short()
            for argument, aval in zip((*vectors, *rest), avals, strict=True)
        },
        "results": [aval.str_short() for aval in exported.out_avals],
        "platforms": list(exported.platforms),
        "calling_convention": exported.calling_convention_version,
    }
