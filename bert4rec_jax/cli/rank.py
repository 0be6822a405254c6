"""`bert4rec rank`: ranked lists for a file of requests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from bert4rec_jax.cli.stages import CANDIDATES, chosen_bundle


def rank(
    bundle: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[BUNDLE]")] = None,
    *,
    requests: Path,
    output: Path,
    users: Path | None = None,
    retriever: Path | None = None,
    ranker: Path | None = None,
    candidates: int = CANDIDATES,
    blend: float = 0.0,
    genres: tuple[str, ...] = (),
    years: tuple[int, int] | None = None,
    only: Path | None = None,
    top: int | None = None,
    keep_seen: bool = False,
    request_time: str | None = None,
    batch_size: int = 256,
    shard_rows: int = 16_384,
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    ray_actors: int | None = None,
) -> None:
    """Rank items for a file of requests. Run the same command again to continue a job.

    Args:
        bundle: A folder made by `bert4rec export` or `bert4rec pipeline`.
        requests: Parquet file, a folder of them, or JSON Lines (.jsonl, also .jsonl.gz), with the
            columns user_id and history (list of item ids, oldest first); optional list columns:
            ratings, candidates, exclude; for a model that reads times also timestamps, and
            request_time (one per request). Or a folder made by `bert4rec prepare`: all its users
            with their whole histories.
        output: Output folder of Parquet files with user_id, item_ids and scores.
        users: Table of user features, as for --data.users, for the users of a prepared folder.
        retriever: With --ranker, instead of BUNDLE: the bundle that finds candidates.
        ranker: The bundle that ranks the candidates.
        candidates: Number of candidates per user.
        blend: Weight of the retriever's scores in the final ranking; see `bert4rec pipeline`.
        genres: Only list items of at least one of these genres. Empty: all items.
        years: Only list items whose title ends in a year of this range.
        only: Only list items of this file: text, one item id per line.
        top: Maximum length of a list. None: all candidates, or the best 100 of the catalog.
        keep_seen: Also list items of the history; a model with data.repeats does so anyway.
        request_time: Date, with or without a time (UTC), of requests that have none of their own,
            for a model that reads times. None: when its training data ends, or the history, if that
            is later.
        batch_size: Histories per device and batch.
        shard_rows: Requests per output file; also the number held in memory.
        engine: local: this process and all its devices. ray: actors of a Ray cluster.
        ray_address: Address of the Ray cluster; auto for the one on this machine. None:
            $RAY_ADDRESS, or a cluster started for this job.
        ray_actors: Number of Ray actors. None: one per GPU, or one per machine without GPUs.
    """
    from bert4rec_jax.data.store import is_store
    from bert4rec_jax.errors import UserError
    from bert4rec_jax.serving.display import counts_table, job_progress
    from bert4rec_jax.serving.filters import Filters
    from bert4rec_jax.serving.job import local, rank_file
    from bert4rec_jax.serving.ray_engine import RayEngine, require_ray
    from bert4rec_jax.serving.worker import Options

    if engine == "local" and (ray_address, ray_actors) != (None, None):
        raise UserError("--ray-address and --ray-actors are for --engine ray")
    if engine == "ray" and bundle is None:
        raise UserError("--engine ray needs one BUNDLE; join the two with `bert4rec pipeline`")
    if engine == "ray" and is_store(requests):
        raise UserError("--engine ray needs a file of requests that every machine can read")
    if engine == "ray":
        require_ray()
    filters = Filters(genres, years, only.resolve() if only else None)
    messages = Console(stderr=True)
    options = Options(top, keep_seen or None, batch_size, shard_rows, filters, request_time)
    with (
        chosen_bundle(bundle, retriever, ranker, candidates, blend) as opened,
        job_progress(messages) as progress,
    ):
        manifest = rank_file(
            opened,
            requests,
            output,
            options,
            users=users,
            engine=local if engine == "local" else RayEngine(ray_address, ray_actors),
            progress=progress,
            notify=lambda sentence: messages.print(f"[yellow]{escape(sentence)}", highlight=False),
        )
    Console().print(counts_table(f"ranked {output}", manifest["counts"]))
