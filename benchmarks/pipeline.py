"""Speed of the two stages against BERT4Rec over the whole catalog, of 80 thousand to 10 M items.

    python benchmarks/pipeline.py RETRIEVER RANKER STORE --items 80000 1000000

Users are real: validation histories of STORE, the prepared data of both runs. The catalog is grown
from that of the bundles. A synthetic item mixes the content and the id of a real item with those of
two items near it, and adds 1 / sqrt(8) of the difference of two items drawn at random; it has the
vector length and the bias of the real item. As the item table is linear in content and id, item
vectors are mixed in the same way, and alike in retriever and ranker. Three ways to make a list of
ten are timed in turn:

  whole      BERT4Rec encodes the history, all items are scored in chunks, exact top 10
  exact      towers encode, all items are scored in chunks, BERT4Rec orders the best of them
  clusters   towers encode, `--probes` groups of items are scored, BERT4Rec orders the best of them

Prints one JSON line per size: milliseconds of one request (p50, p99) and users per second in
batches, of each way and of its stages; how many times faster than `whole` the pipelines are; the
share of the exact candidates that `clusters` finds; and the share of the ten items of `whole` that
the pipelines list. On a shared machine, compare only ratios.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import tyro

from bert4rec_jax.data.catalog import FIRST_ITEM, ROW_MULTIPLE
from bert4rec_jax.data.split import leave_one_out
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.entry import tune_memory
from bert4rec_jax.evaluation.ranks import best_by_vectors, largest
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.clusters import Clusters
from bert4rec_jax.serving.functions import Functions
from bert4rec_jax.serving.retrieval import users_of_one_item

_TOP = 10
_NEAR = 10  # neighbours that a synthetic item may be mixed with
_WARM = 3  # requests before the timed ones, to compile and to fill caches


def main(
    retriever: Annotated[Path, tyro.conf.Positional],
    ranker: Annotated[Path, tyro.conf.Positional],
    store: Annotated[Path, tyro.conf.Positional],
    items: tuple[int, ...] = (80_000, 1_000_000),
    candidates: int = 200,
    probes: int = 16,
    users: int = 200,
    batch: int = 16,
    chunk: int = 65_536,
) -> None:
    """Time three ways to a list.

    Args:
      retriever: Bundle of the towers.
      ranker: Bundle of BERT4Rec.
      store: Prepared data of both.
      items: Sizes of the grown catalogs.
      candidates: Items that the retriever hands on.
      probes: Groups that `clusters` looks into.
      users: Users asked, one after the other, and then in batches.
      batch: Users of a batch.
      chunk: Items scored at once.
    """
    bundles = Bundle.open(retriever), Bundle.open(ranker)
    length = min(bundle.max_length for bundle in bundles) - 1
    histories = _histories(SequenceStore.open(store), users, length)
    for count in items:
        models = _grown(*bundles, count, batch)
        found = _measure(*models, histories, candidates, probes, batch, chunk)
        about = {
            "items": count,
            "device": jax.devices()[0].device_kind,
            "devices": jax.device_count(),
            "commit": _commit(),
            "width": {"retriever": models[0].width, "ranker": models[1].width},
            "candidates": candidates,
            "users": len(histories),
            "batch": batch,
        }
        print(json.dumps(about | found), flush=True)


@dataclass(frozen=True, eq=False)
class _Model:
    """A bundle whose catalog was grown.

    Attributes:
      functions: the bundle's functions.
      vectors: `[V, D]` item vectors of the grown catalog.
      bias: `[V]` biases of the grown catalog.
      listed: `[V]` bool, the items that may be listed.
      users: `[N, D]` user vectors of histories of one item each.
    """

    functions: Functions
    vectors: jax.Array
    bias: jax.Array
    listed: npt.NDArray[np.bool_]
    users: npt.NDArray[np.float32]

    @property
    def width(self) -> int:
        return int(self.vectors.shape[1])


def _measure(
    towers: _Model, bert: _Model, histories: npt.NDArray[np.int32], candidates: int, probes: int,
    batch: int, chunk: int,
) -> dict[str, Any]:  # fmt: skip
    scan = jax.jit(partial(best_by_vectors, chunk=chunk), static_argnames="top")
    listed = jnp.asarray(towers.listed)
    started = time.monotonic()
    clusters = Clusters.of(
        np.asarray(towers.vectors), np.asarray(towers.bias), towers.listed, towers.users
    )
    built = time.monotonic() - started

    @jax.jit
    def order(hidden: jax.Array, tokens: jax.Array, vectors: jax.Array, bias: jax.Array) -> Any:
        scores = jnp.einsum("BD,BCD->BC", hidden, vectors[tokens]) + bias[tokens]
        best, places = largest(jnp.where(tokens > 0, scores, -jnp.inf), _TOP)
        return best, jnp.take_along_axis(tokens, places, axis=1)

    def asked(size: int) -> tuple[dict[str, npt.NDArray[Any]], dict[str, list[Any]]]:
        """Seconds of each stage, and what was found, for users in batches of `size`."""
        seconds: dict[str, list[float]] = {}
        answers: dict[str, list[Any]] = {}

        def timed(name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = jax.block_until_ready(function(*arguments, **options))
            seconds.setdefault(name, []).append(time.perf_counter() - start)
            return result

        blocks = [histories[i : i + size] for i in range(0, len(histories) - size + 1, size)]
        for number, tokens in enumerate([blocks[0]] * _WARM + blocks):
            if number == _WARM:
                seconds.clear()
                answers.clear()
            thumbs = np.zeros(tokens.shape, np.int8)
            seen = jnp.asarray(tokens)
            hidden = timed("BERT4Rec encodes", bert.functions.encode, tokens, thumbs)
            of_all = (hidden, bert.vectors, bert.bias, seen, listed)
            whole = timed("BERT4Rec, top 10 of all", scan, *of_all, top=_TOP)
            user = timed("towers encode", towers.functions.encode, tokens, thumbs)
            of_all = (user, towers.vectors, towers.bias, seen, listed)
            exact = timed("exact scan", scan, *of_all, top=candidates)
            near = timed("groups", clusters.best, user, seen, top=candidates, probes=probes)
            ordered = order(hidden, exact[1], bert.vectors, bert.bias)
            lists = timed("BERT4Rec orders", order, hidden, near[1], bert.vectors, bert.bias)
            for name, found in (
                ("whole", whole), ("candidates", exact), ("near", near), ("exact", ordered),
                ("clusters", lists),
            ):  # fmt: skip
                answers.setdefault(name, []).extend(np.asarray(found[1])[: len(tokens)])
        times = {name: np.array(values) for name, values in seconds.items()}
        two = times["BERT4Rec encodes"] + times["BERT4Rec orders"]
        ways = {
            "whole": times["BERT4Rec encodes"] + times["BERT4Rec, top 10 of all"],
            "exact": times["towers encode"] + times["exact scan"] + two,
            "clusters": times["towers encode"] + times["groups"] + two,
        }
        return ways | times, answers

    one, answers = asked(1)
    many, _ = asked(batch)

    def overlap(ours: str, theirs: str) -> float:
        shares = [np.isin(b, a).mean() for a, b in zip(answers[ours], answers[theirs])]
        return round(float(np.mean(shares)), 4)

    def faster(times: dict[str, npt.NDArray[Any]]) -> dict[str, float]:
        whole = np.median(times["whole"])
        return {
            name: round(float(whole / np.median(times[name])), 2) for name in ("exact", "clusters")
        }

    return {
        "probes": f"{probes} of {len(clusters.tokens)} groups of {clusters.tokens.shape[1]}",
        "seconds_to_build_clusters": round(built, 1),
        "ms_p50_p99": {
            name: [round(float(np.percentile(x, q)) * 1000, 2) for q in (50, 99)]
            for name, x in one.items()
        },
        "users_per_second_in_batches": {
            name: round(batch / float(np.median(x))) for name, x in many.items()
        },
        "times_faster_than_whole": {"one_by_one": faster(one), "in_batches": faster(many)},
        "recall_of_exact_candidates": overlap("near", "candidates"),
        "share_of_the_ten_of_whole": {x: overlap(x, "whole") for x in ("exact", "clusters")},
    }


def _histories(store: SequenceStore, users: int, length: int) -> npt.NDArray[np.int32]:
    """`[users, length]`: the last items before validation targets, padded with PAD on the right."""
    cases = leave_one_out(store).validation
    drawn = np.random.default_rng(0).choice(len(cases), users, replace=False)
    rows = np.zeros((users, length), np.int32)
    for row, history in zip(rows, cases[drawn].histories(store)):
        last = history[-length:]
        row[: len(last)] = last
    return rows


def _grown(retriever: Bundle, ranker: Bundle, items: int, batch: int) -> tuple[_Model, _Model]:
    generator = np.random.default_rng(0)
    rows = -(-(items + FIRST_ITEM) // ROW_MULTIPLE) * ROW_MULTIPLE
    real = np.flatnonzero(retriever.known & ranker.known).astype(np.int32)
    bundles = [Functions(bundle, batch) for bundle in (retriever, ranker)]
    first = len(retriever.known)
    listed = np.zeros(rows, bool)
    listed[real] = True
    listed[first : first + items - len(real)] = True

    added = rows - first
    unit = np.asarray(bundles[1].vectors)[real]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    near = np.argsort(-(unit @ unit.T), axis=1)[:, 1 : _NEAR + 1]
    one, *moved = generator.integers(len(real), size=(3, added))
    like = near[one, generator.integers(_NEAR, size=(2, added))]
    parents = np.stack([real[x] for x in (one, *like, *moved)], axis=1)
    shares = generator.dirichlet([4, 2, 1], added).astype(np.float32)
    # Half a difference of two items, scaled by 1 / sqrt(2) to the variance of one.
    shift = np.float32(0.5**0.5 / 2)
    weights = np.concatenate([shares, np.full((added, 1), shift), np.full((added, 1), -shift)], 1)

    @jax.jit
    def grow(vectors: jax.Array, parents: jax.Array, weights: jax.Array) -> jax.Array:
        grown = jnp.zeros((first + added, vectors.shape[1])).at[:first].set(vectors)

        def more(number: jax.Array, grown: jax.Array) -> jax.Array:
            start = number * ROW_MULTIPLE
            mine, how = (
                jax.lax.dynamic_slice_in_dim(x, start, ROW_MULTIPLE) for x in (parents, weights)
            )
            mixed = jnp.einsum("NP,NPD->ND", how, vectors[mine])
            length = jnp.linalg.norm(vectors[mine[:, 0]], axis=1, keepdims=True)
            mixed *= length / jnp.linalg.norm(mixed, axis=1, keepdims=True)
            return jax.lax.dynamic_update_slice_in_dim(grown, mixed, first + start, axis=0)

        return jax.lax.fori_loop(0, added // ROW_MULTIPLE, more, grown)

    def model(functions: Functions) -> _Model:
        bias = np.asarray(functions.bias)
        return _Model(
            functions,
            grow(functions.vectors, parents, weights),
            jnp.asarray(np.concatenate([bias, bias[parents[:, 0]]])),
            listed,
            users_of_one_item(functions, listed[:first]),
        )

    towers, bert = map(model, bundles)
    return towers, bert


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    tune_memory()
    tyro.cli(main)
