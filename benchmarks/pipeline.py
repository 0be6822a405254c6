"""The two stages against BERT4Rec over the whole catalog, from 80 thousand items to millions.

    python benchmarks/pipeline.py RETRIEVER RANKER --items 80000 1000000

Grows the catalogs of two bundles: a synthetic item has the vectors of a real one in both models,
with noise of half their spread, so that near items are near in both. Histories are real items,
drawn at random. Three ways to a list of ten are timed in turn, one user at a time:

  whole      BERT4Rec encodes the history, all items are scored in chunks, exact top 10
  exact      towers encode, all items are scored in chunks, BERT4Rec orders the best of them
  clusters   towers encode, `--probes` groups of items are scored, BERT4Rec orders the best of them

One JSON line per size: milliseconds per user (p50, p99) of each way and of its stages, how many
times faster than `whole` the pipelines are, and the recall of `clusters` and of `approx_max_k`
against the exact candidates. Where the machine is shared, compare ratios only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from bert4rec_jax.data.catalog import FIRST_ITEM, ROW_MULTIPLE
from bert4rec_jax.entry import tune_memory
from bert4rec_jax.evaluation.ranks import best_by_vectors
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.clusters import Clusters
from bert4rec_jax.serving.functions import Functions

_TOP = 10


def main(
    retriever: Annotated[Path, tyro.conf.Positional],
    ranker: Annotated[Path, tyro.conf.Positional],
    items: tuple[int, ...] = (80_000, 1_000_000),
    candidates: int = 200,
    probes: int = 16,
    users: int = 50,
    chunk: int = 65_536,
) -> None:
    """Time three ways to a list.

    Args:
        retriever: Bundle of the towers.
        ranker: Bundle of BERT4Rec.
        items: Sizes of the grown catalogs.
        candidates: Items that the retriever hands on.
        probes: Groups that `clusters` looks into.
        users: Users asked, one after the other.
        chunk: Items scored at once.
    """
    bundles = Bundle.open(retriever), Bundle.open(ranker)
    for count in items:
        print(json.dumps(_measure(*bundles, count, candidates, probes, users, chunk)), flush=True)


def _measure(
    retriever: Bundle, ranker: Bundle, items: int, candidates: int, probes: int, users: int,
    chunk: int,
) -> dict[str, Any]:  # fmt: skip
    generator = np.random.default_rng(0)
    rows = -(-(items + FIRST_ITEM) // ROW_MULTIPLE) * ROW_MULTIPLE
    real = np.flatnonzero(retriever.known & ranker.known)
    like = np.concatenate([np.arange(retriever.catalog.num_rows), generator.choice(real, rows)])
    like = like[:rows]
    listed = (np.arange(rows) >= FIRST_ITEM) & (np.arange(rows) < FIRST_ITEM + items)
    towers, bert = Functions(retriever, 1), Functions(ranker, 1)
    tower_items, bert_items = (_grow(each, like, real, generator) for each in (towers, bert))
    scan = jax.jit(partial(best_by_vectors, chunk=chunk), static_argnames=("top", "recall"))
    on_device = jnp.asarray(listed)
    started = time.monotonic()
    clusters = Clusters.of(*tower_items, listed)
    built = time.monotonic() - started
    small, large = (tuple(map(jnp.asarray, x)) for x in (tower_items, bert_items))

    @jax.jit
    def order(hidden: jax.Array, tokens: jax.Array, vectors: jax.Array, bias: jax.Array) -> Any:
        scores = jnp.einsum("BD,BCD->BC", hidden, vectors[tokens]) + bias[tokens]
        best, places = jax.lax.top_k(scores, _TOP)
        return best, jnp.take_along_axis(tokens, places, axis=1)

    length = min(retriever.max_length, ranker.max_length) - 1
    seconds: dict[str, list[float]] = {}
    recalls: dict[str, list[float]] = {"clusters": [], "approx_max_k": []}

    def timed(name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = jax.block_until_ready(function(*arguments, **options))
        seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    for number in range(users + 3):
        if number == 3:  # all is compiled, and caches are as they will be
            seconds.clear()
        tokens = generator.choice(real, (1, length)).astype(np.int32)
        thumbs = np.zeros(tokens.shape, np.int8)
        seen = jnp.asarray(tokens)
        hidden = timed("BERT4Rec encodes", bert.encode, tokens, thumbs)
        timed("BERT4Rec, top 10 of all", scan, hidden, *large, seen, on_device, top=_TOP)
        user = timed("towers encode", towers.encode, tokens, thumbs)
        exact = timed("exact scan", scan, user, *small, seen, on_device, top=candidates)
        near = timed("groups", clusters.best, user, seen, top=candidates, probes=probes)
        timed("BERT4Rec orders", order, hidden, near[1], *large)
        if number < 10:
            rough = scan(user, *small, seen, on_device, top=candidates, recall=0.95)
            for name, found in (("clusters", near), ("approx_max_k", rough)):
                recalls[name].append(np.isin(exact[1], found[1]).mean())

    times = {name: np.array(values) * 1000 for name, values in seconds.items()}
    order_ms = times["BERT4Rec encodes"] + times["BERT4Rec orders"]
    ways = {
        "whole": times["BERT4Rec encodes"] + times["BERT4Rec, top 10 of all"],
        "exact": times["towers encode"] + times["exact scan"] + order_ms,
        "clusters": times["towers encode"] + times["groups"] + order_ms,
    }
    return {
        "items": items,
        "device": jax.devices()[0].device_kind,
        "candidates": candidates,
        "probes": f"{probes} of {len(clusters.tokens)} groups of {clusters.tokens.shape[1]}",
        "seconds_to_build_clusters": round(built, 1),
        "ms_p50_p99": {
            name: [round(float(np.percentile(x, q)), 2) for q in (50, 99)]
            for name, x in {**ways, **times}.items()
        },
        "times_faster_than_whole_p50": {
            name: round(float(np.median(ways["whole"] / ways[name])), 2)
            for name in ("exact", "clusters")
        },
        "recall_of_exact_candidates": {
            name: round(float(np.mean(x)), 4) for name, x in recalls.items()
        },
    }


def _grow(
    functions: Functions, like: np.ndarray, real: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and biases of a grown catalog: real items first, then noisy copies."""
    vectors, bias = np.asarray(functions.vectors), np.asarray(functions.bias)
    grown, grown_bias = vectors[like], bias[like]
    added = len(like) - len(vectors)
    spread = vectors[real].std(axis=0) / 2
    grown[len(vectors) :] += (
        generator.standard_normal((added, vectors.shape[1]), np.float32) * spread
    )
    return grown, grown_bias


if __name__ == "__main__":
    tune_memory()
    tyro.cli(main)
