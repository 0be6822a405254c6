"""The `bert4rec` command: one function per subcommand, its signature and docstring are the help.

To add a command, write a function here and put `@_app.command` above it. Commands import what they
use inside: `bert4rec prepare` starts without jax.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from bert4rec_jax.data.formats import Format
from bert4rec_jax.data.rows import ROWS_IN_MEMORY
from bert4rec_jax.entry import run_command
from bert4rec_jax.features.options import BLOCKS, BlockName

if TYPE_CHECKING:
    from bert4rec_jax.data.prepare import Report

CANDIDATES = 200  # that a retriever hands on unless told otherwise
_app = tyro.extras.SubcommandApp()


def main() -> None:
    """Run `bert4rec` with the arguments of the process; see `entry.run_command` for its status."""
    run_command(lambda: _app.cli(prog="bert4rec", description="BERT4Rec for movies."))


@_app.command
def prepare(
    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")],
    *,
    output: Path,
    format: Format | None = None,
    user_column: str = "user_id",
    item_column: str = "item_id",
    timestamp_column: str | None = "timestamp",
    rating_column: str | None = "rating",
    titles: Path | None = None,
    min_user_interactions: int = 5,
    min_item_interactions: int = 5,
    rows_in_memory: int = ROWS_IN_MEMORY,
    mirror: str | None = None,
    cache: Path | None = None,
) -> None:
    """Turn a log of ratings or views into a store to train on.

    Parquet may be one file or a folder of shards, with a row per interaction or a row per user with
    lists of items, times and ratings. Logs may be larger than memory: while it works, 40 bytes per
    interaction lie on disk beside the output.

    Args:
        source: A known data set (movietweetings, ml-100k, ml-1m, ml-10m, ml-20m, ml-25m, ml-32m),
            or the path of a log file or folder.
        output: The folder to make; an earlier store there is replaced.
        format: How to read the log. None tells it by file names and content.
        user_column: Column of user ids in a csv, tsv or parquet table.
        item_column: Column of item ids in a table.
        timestamp_column: Column of times in a table: seconds or dates. None: rows in time order.
        rating_column: Column of ratings in a table. None: no ratings.
        titles: File with the titles of the items (movies.dat, u.item, movies.csv).
        min_user_interactions: Users with fewer interactions are left out.
        min_item_interactions: Items with fewer interactions are left out.
        rows_in_memory: Interactions held in memory at once, about 100 bytes each; users and items
            come on top. The store is the same for any number.
        mirror: Address of the folder to download from, instead of GroupLens.
        cache: Folder of downloaded data sets. None: bert4rec-jax in $XDG_CACHE_HOME or ~/.cache.
    """
    from bert4rec_jax.data.columns import Columns
    from bert4rec_jax.data.prepare import prepare

    columns = Columns(user_column, item_column, timestamp_column, rating_column)
    console = Console(stderr=True)
    columns_shown = (TextColumn("download"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns_shown, console=console)
    task = bar.add_task("download", total=None)
    with ExitStack() as shown:

        def advance(done: int, total: int | None) -> None:
            if not bar.live.is_started:  # most preparations download nothing
                shown.enter_context(bar)
            bar.update(task, completed=done, total=total)

        prepared = prepare(
            source,
            output,
            min_user_interactions=min_user_interactions,
            min_item_interactions=min_item_interactions,
            format=format,
            columns=None if columns == Columns() else columns,
            titles=titles,
            cache=cache,
            mirror=mirror,
            rows_in_memory=rows_in_memory,
            progress=advance,
            notify=console.print,
        )
    Console().print(_table(prepared.report, output))


@_app.command
def evaluate(
    workdir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="WORKDIR")],
    *,
    output: Path | None = None,
    bundles: tuple[Path, ...] = (),
) -> None:
    """Test the best checkpoint of a training run, beside the baselines.

    Args:
        workdir: The folder of the run; it may be unfinished.
        bundles: Also test these exports of the run, with what they lose.
        output: File for the metrics, as JSON. None: only the tables are shown.
    """
    from bert4rec_jax import experiment
    from bert4rec_jax.outputs import write_json
    from bert4rec_jax.serving.evaluation import exported

    results = experiment.evaluate(workdir, exported=exported(bundles))
    if output:
        write_json(output, results)


@_app.command
def features(
    store: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STORE")],
    *,
    output: Path,
    metadata: Path | None = None,
    id_column: str | None = None,
    id_map: Path | None = None,
    separator: str = "|",
    blocks: tuple[BlockName, ...] = BLOCKS,
    min_count: int = 5,
    keywords: int = 512,
    cast: int = 256,
    crew: int = 128,
    companies: int = 128,
    buckets: int = 16,
    leaky_columns: bool = False,
    split: Literal["leave-one-out", "global-time", "cold-items"] = "leave-one-out",
    time_quantile: float = 0.9,
    text: bool = False,
    text_model: str | None = None,
    text_revision: str | None = None,
    text_prompt: str | None = None,
    truncate_dim: int | None = None,
    text_batch_size: int = 32,
    cache: Path | None = None,
    embeddings: Path | None = None,
    like: Path | None = None,
) -> None:
    """Turn metadata and texts of movies into content for the items of a store.

    Args:
        store: A folder made by `bert4rec prepare`.
        output: The folder to make; earlier content there is replaced.
        metadata: Table of movies as TMDB has them: Parquet, CSV or JSON. None: only the titles,
            years and genres of the store.
        id_column: Column of ids in the table. None: the one that matches most items.
        id_map: File with two columns, an item's id in the store and in the table, if they differ.
        separator: Between the names of a list in one field of the table.
        blocks: Blocks of columns to make.
        min_count: Items of the training part that a name needs for a column of its own.
        keywords: Most keywords with a column of their own.
        cast: Most actors with one.
        crew: Most directors and writers with one.
        companies: Most companies with one.
        buckets: Columns that all other names of a list share.
        leaky_columns: Also popularity, votes and revenue, which know the future.
        split: Whose training part vocabularies and scales are fitted on.
        time_quantile: The moment of the global-time split.
        text: Embed titles, taglines and overviews with a language model (extra: text).
        text_model: Its name or folder; turns `text` on. None: google/embeddinggemma-300m.
        text_revision: Commit or tag of the model. None: the newest.
        text_prompt: Form of the text, with {title} and {text}. None: as the model wants it.
        truncate_dim: Keep so many numbers of each embedding. None: all.
        text_batch_size: Texts that the model reads at once.
        cache: Folder of embeddings computed earlier. None: content in the cache of downloads.
        embeddings: Embeddings computed elsewhere (.npy in the store's order, Parquet with ids).
        like: Earlier content whose columns to make, for a model that goes on with newer data.
    """
    from bert4rec_jax.data.store import SequenceStore
    from bert4rec_jax.features.build import build, training_items
    from bert4rec_jax.features.content import read_encoding
    from bert4rec_jax.features.coverage import table
    from bert4rec_jax.features.options import Options, TextOptions
    from bert4rec_jax.features.sources import Sources
    from bert4rec_jax.features.text import DEFAULT_MODEL

    read = SequenceStore.open(store)
    model = text_model or (DEFAULT_MODEL if text else None)
    console = Console(stderr=True)
    bar = Progress(TextColumn("texts"), BarColumn(), MofNCompleteColumn(), console=console)
    with bar if model else nullcontext():
        task = bar.add_task("texts", total=None)
        built = build(
            read,
            output,
            fitted=training_items(read, split, time_quantile=time_quantile),
            sources=Sources(metadata, id_column, id_map, separator, embeddings),
            options=Options(
                blocks, min_count, keywords, cast, crew, companies, buckets, leaky_columns
            ),
            like=read_encoding(like) if like else None,
            text=TextOptions(model, text_revision, text_prompt, truncate_dim, text_batch_size)
            if model
            else None,
            cache=cache,
            about={"split": split, "time_quantile": time_quantile},
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            notify=lambda sentence: console.print(sentence, markup=False, highlight=False),
        )
    Console().print(table(f"content {output}", built.coverage))


@_app.command
def export(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    bundle: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE")],
    *,
    dtype: Literal["float32", "bfloat16", "int8"] = "float32",
) -> None:
    """Write the best checkpoint of a training run as a bundle, to rank and recommend with.

    Args:
        run: The folder of the run (train.py's --workdir); it may be unfinished.
        bundle: The folder to make; an earlier bundle there is replaced.
        dtype: Type of the weights. bfloat16 halves them; int8, with a scale per item and output, is
            a quarter. See what that costs with `bert4rec evaluate RUN --bundles BUNDLE`.
    """
    from bert4rec_jax.serving.export import export

    manifest = export(run, bundle, dtype=dtype, console=Console(stderr=True))
    Console().print(
        f"{bundle}: step {manifest['step']:,}, {manifest['known_items']:,} items, {dtype}, for "
        f"{', '.join(manifest['functions']['encode']['platforms'])}; later versions of JAX can "
        f"read it until {manifest['readable_until']}",
        highlight=False,
        soft_wrap=True,
    )


@_app.command
def add_items(
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")],
    bundle: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE")],
    *,
    metadata: Path | None = None,
    id_column: str | None = None,
    separator: str = "|",
    embeddings: Path | None = None,
    ids: tuple[str, ...] = (),
    offset: float | None = None,
    dtype: Literal["float32", "bfloat16", "int8"] = "float32",
    text_model: str | None = None,
    cache: Path | None = None,
) -> None:
    """Add new releases to a trained model, without training: they are known by their content.

    Args:
        source: A bundle, or the folder of a training run, whose model knows content.
        bundle: The folder to make; an earlier bundle there is replaced, also SOURCE itself.
        metadata: Table of the new movies, as for `bert4rec features`.
        id_column: Column of ids in the table. None: the first that is known.
        separator: Between the names of a list in one field of the table.
        embeddings: Their embeddings computed elsewhere, where the content has such.
        ids: The only movies to add. None: all of the table.
        offset: Added to the scores of all items without a training event. None: as calibrated.
        dtype: Type of the weights, as for `bert4rec export`; SOURCE itself has to be in float32.
        text_model: Folder of the text model, where the texts were embedded by one of a folder.
        cache: Folder of embeddings computed earlier. None: content in the cache of downloads.
    """
    from bert4rec_jax.features.sources import Sources
    from bert4rec_jax.serving.add_items import add_items

    console = Console(stderr=True)
    manifest = add_items(
        source,
        bundle,
        sources=Sources(metadata, id_column, None, separator, embeddings),
        ids=ids,
        offset=offset,
        dtype=dtype,
        text_model=text_model,
        cache=cache,
        console=console,
        notify=lambda sentence: console.print(sentence, markup=False, highlight=False),
    )
    Console().print(
        f"{bundle}: {manifest['items']:,} items, {manifest['added_items']:,} of them added after "
        "training",
        highlight=False,
        soft_wrap=True,
    )


@_app.command
def pipeline(
    retriever: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RETRIEVER")],
    ranker: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RANKER")],
    bundle: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE")],
    *,
    candidates: int = CANDIDATES,
    probes: int = 0,
) -> None:
    """Join two bundles into one that finds candidates with the first and orders with the second.

    Args:
        retriever: A bundle of two towers (or of any model).
        ranker: A bundle of BERT4Rec (or of any model), of the same catalog.
        bundle: The folder to make; an earlier bundle there is replaced.
        candidates: Items that the retriever hands on.
        probes: Look into so many groups of items only, for large catalogs; 0 looks at all items.
    """
    from bert4rec_jax.serving.pipeline import write_pipeline

    write_pipeline(retriever, ranker, bundle, candidates=candidates, probes=probes)
    Console().print(f"{bundle}: {candidates:,} candidates", highlight=False, soft_wrap=True)


@_app.command
def rank(
    bundle: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[BUNDLE]")] = None,
    *,
    requests: Path,
    output: Path,
    retriever: Path | None = None,
    ranker: Path | None = None,
    candidates: int = CANDIDATES,
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
        _bundle(bundle, retriever, ranker, candidates) as opened,
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


@_app.command
def recommend(
    bundle_and_titles: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[BUNDLE] [TITLE ...]")
    ],
    k: Annotated[int, tyro.conf.arg(aliases=("-k",))] = 10,
    retriever: Path | None = None,
    ranker: Path | None = None,
    candidates: int = CANDIDATES,
    genres: tuple[str, ...] = (),
    years: tuple[int, int] | None = None,
    only: Path | None = None,
) -> None:
    """Show what a model recommends to someone who has seen these movies.

    Args:
        bundle_and_titles: A folder made by `bert4rec export` or `bert4rec pipeline` (not with
            --ranker), then titles or item ids, oldest first; small mistakes are forgiven.
        k: Length of the list.
        retriever: Instead of BUNDLE, with --ranker: the bundle that finds candidates.
        ranker: The bundle that orders them.
        candidates: How many the retriever hands on.
        genres: List items of these genres only.
        years: List items from the first to the last of these years only, by their titles.
        only: List items of this file only: a text file with an item id per line.
    """
    from bert4rec_jax.serving.display import show_recommendations
    from bert4rec_jax.serving.filters import Filters

    given, titles = (None, bundle_and_titles)
    if ranker is None and bundle_and_titles:
        given, titles = Path(bundle_and_titles[0]), bundle_and_titles[1:]
    with _bundle(given, retriever, ranker, candidates) as opened:
        show_recommendations(opened, titles, k, Filters(genres, years, only))


def _bundle(
    bundle: Path | None, retriever: Path | None, ranker: Path | None, candidates: int
) -> AbstractContextManager[Path]:
    """The bundle that was meant: one that was named, or a pipeline of two."""
    from bert4rec_jax.errors import UserError
    from bert4rec_jax.serving.pipeline import joined

    if retriever is not None and ranker is not None and bundle is None:
        return joined(retriever, ranker, candidates=candidates)
    if bundle is None or retriever is not None or ranker is not None:
        raise UserError("give one BUNDLE, or --retriever and --ranker instead of it")
    if candidates != CANDIDATES:
        raise UserError("--candidates is for --retriever; a pipeline was made with its own number")
    return nullcontext(bundle)


@_app.command
def similar(
    bundle: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE")],
    title: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TITLE")],
    k: Annotated[int, tyro.conf.arg(aliases=("-k",))] = 10,
) -> None:
    """Show the movies whose learned vectors are closest to that of one movie.

    Args:
        bundle: A folder made by `bert4rec export`.
        title: A title or an item id; small mistakes are forgiven.
        k: Length of the list.
    """
    from bert4rec_jax.serving.display import show_similar

    show_similar(bundle, title, k)


@_app.command
def explain(
    bundle: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE")],
    *,
    history: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TITLE ...")],
    item: str | None = None,
    masked: str | None = None,
    picture: Path | None = None,
) -> None:
    """Show why a movie is recommended: what each movie of a history does, and where heads look.

    Args:
        bundle: A folder made by `bert4rec export`.
        history: Titles or item ids, oldest first; small mistakes are forgiven.
        item: The movie to explain, by title or id. None: the first recommendation.
        masked: A movie of the history to hide and guess, without what came after it and with it.
            None: the middle one.
        picture: SVG file to write.
    """
    from bert4rec_jax.serving.explanation_display import show_explanation

    show_explanation(bundle, history, item, masked, picture)


@_app.command
def report(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    *,
    output: Path | None = None,
) -> None:
    """Write what a run learned as one HTML file that needs no network.

    Args:
        run: The folder of the run; it may be unfinished.
        output: The file to write. None: report.html in the folder of the run.
    """
    from bert4rec_jax.report.report import write_report

    path = output or run / "report.html"
    write_report(run, path, Console(stderr=True))
    Console().print(f"Written: {path}", highlight=False, soft_wrap=True, markup=False)


@_app.command
def explore(
    bundles: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="BUNDLE [BUNDLE ...]")
    ],
    *,
    host: str = "127.0.0.1",
    port: int = 8008,
    k: Annotated[int, tyro.conf.arg(aliases=("-k",))] = 10,
) -> None:
    """Open a local web page to try models on (extra: demo).

    Args:
        bundles: Folders made by `bert4rec export`; several are shown side by side.
        host: Address to listen on. The default is reached from this machine only.
        port: Port to listen on; 0 takes any that is free.
        k: Length of the lists.
    """
    from bert4rec_jax.explore.server import serve

    serve(bundles, host=host, port=port, k=k, console=Console(stderr=True))


def _table(report: Report, output: Path) -> Table:
    """The counts of a preparation, one per line."""
    table = Table("", "", title=f"prepared {output}", show_header=False)
    for what, count in (
        ("interactions read", report.read),
        ("duplicates dropped", report.duplicates),
        ("users", report.users),
        ("items", report.items),
        ("items with a title", report.titled),
        ("interactions", report.interactions),
        ("shortest history", report.shortest),
        ("longest history", report.longest),
    ):
        table.add_row(what, f"{count:,}")
    if report.empty_histories:
        table.add_row("users with an empty list", f"{report.empty_histories:,}")
    ratings = report.rating_range
    table.add_row("ratings", f"{ratings[0]:g} to {ratings[1]:g}" if ratings else "none")
    days = report.time_range and [
        f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d}" for t in report.time_range
    ]
    table.add_row("time", " to ".join(days) if days else "none: rows as they stand in the log")
    return table
