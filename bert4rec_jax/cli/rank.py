"""`bert4rec rank`: a file of requests to ranked lists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from bert4rec_jax.cli.stages import CANDIDATES, chosen_bundle


def rank(
    bundle: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[BUNDLE]")] = None,
    *,
    requests: Path,
    output: Path,
    retriever: Path | None = None,
    ranker: Path | None = None,
    candidates: int = CANDIDATES,
    blend: float = 0.0,
    genres: tuple[str, ...] = (),
    years: tuple[int, int] | None = None,
    only: Path | None = None,
    top: int | None = None,
    keep_seen: bool = False,
    batch_size: int = 256,
    shard_rows: int = 16_384,
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    ray_actors: int | None = None,
) -> None:
    """Answer a Parquet file of requests; the same command continues after an interruption.

    Args:
        bundle: A folder made by `bert4rec export` or `bert4rec pipeline`.
        requests: Parquet file, or folder of them, with the columns user_id and history (list of
            item ids, oldest first), and perhaps ratings, candidates and exclude (lists).
        output: The folder of Parquet files to make: user_id, item_ids and scores.
        retriever: Instead of BUNDLE, with --ranker: the bundle that finds candidates.
        ranker: The bundle that orders them.
        candidates: How many the retriever hands on.
        blend: What the retriever's scores weigh beside the ranker's; see `bert4rec pipeline`.
        genres: List items of these genres only.
        years: List items from the first to the last of these years only, by their titles.
        only: List items of this file only: a text file with an item id per line.
        top: The longest list. None: all candidates, or the best 100 of the whole catalog.
        keep_seen: Also list items of the history.
        batch_size: Histories computed at once by one device.
        shard_rows: Requests per file of the output, and held in memory.
        engine: local: this process and all its devices. ray: actors of a Ray cluster.
        ray_address: Cluster of the ray engine, auto for the one of this machine. None: that of
            $RAY_ADDRESS, or one started here for this job.
        ray_actors: Scorers of the ray engine. None: one per GPU, or per machine without any.
    """
    from bert4rec_jax.errors import UserError
    from bert4rec_jax.serving.display import counts_table, job_progress
    from bert4rec_jax.serving.filters import Filters
    from bert4rec_jax.serving.job import local, rank_file
    from bert4rec_jax.serving.ray_engine import RayEngine
    from bert4rec_jax.serving.worker import Options

    if engine == "local" and (ray_address, ray_actors) != (None, None):
        raise UserError("--ray-address and --ray-actors are for --engine ray")
    if engine == "ray" and bundle is None:
        raise UserError("--engine ray needs one BUNDLE; join the two with `bert4rec pipeline`")
    filters = Filters(genres, years, only.resolve() if only else None)
    options = Options(top, keep_seen, batch_size, shard_rows, filters)
    with (
        chosen_bundle(bundle, retriever, ranker, candidates, blend) as opened,
        job_progress(Console(stderr=True)) as progress,
    ):
        manifest = rank_file(
            opened,
            requests,
            output,
            options,
            engine=local if engine == "local" else RayEngine(ray_address, ray_actors),
            progress=progress,
        )
    Console().print(counts_table(f"ranked {output}", manifest["counts"]))
