"""`bert4rec prepare`: a log of ratings or views to a store."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from bert4rec_jax.data.options import ROWS_IN_MEMORY, Format, TimeUnit

if TYPE_CHECKING:
    from bert4rec_jax.data.prepare import Report


def prepare(
    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")],
    *,
    output: Path,
    format: Format | None = None,
    user_column: str = "user_id",
    item_column: str = "item_id",
    timestamp_column: str | None = "timestamp",
    rating_column: str | None = "rating",
    event_column: str | None = None,
    events: tuple[str, ...] = (),
    timestamp_unit: TimeUnit = "s",
    titles: Path | None = None,
    skip_incomplete: bool = False,
    collapse_repeats: bool = False,
    min_user_interactions: int = 5,
    min_item_interactions: int = 5,
    max_user_interactions: int | None = None,
    rows_in_memory: int = ROWS_IN_MEMORY,
    mirror: str | None = None,
    cache: Path | None = None,
) -> None:
    """Turn a log of ratings or views into a store to train on.

    Parquet may be one file or a folder of shards, with one row per interaction or one row per user
    with lists of items, times and ratings. Logs may be larger than memory: preparation needs 40 to
    44 bytes of temporary disk space per interaction, next to the output.

    Args:
        source: A known data set (movietweetings, ml-100k, ml-1m, ml-10m, ml-20m, ml-25m, ml-32m),
            or the path of a log file or folder.
        output: The folder to make; an earlier store there is replaced.
        format: Format of the log. None: detected from file names and content.
        user_column: User id column of a csv, tsv, jsonl or parquet table.
        item_column: Item id column of a table.
        timestamp_column: Time column of a table: numbers or dates. None: rows are in time order.
        rating_column: Rating column of a table; the default may be missing. None: no ratings.
        event_column: Event column of a table (view, purchase, ...). None: every row counts.
        events: Events of event_column to keep, such as `purchase`; other rows are left out.
        timestamp_unit: Unit of times that are numbers.
        titles: File with the titles of the items: CSV, TSV, Parquet or JSON Lines with the columns
            item_id (or movieId, id, or that of --item-column), title and optionally genres
            (separated by |, or a list); or movies.dat, u.item.
        skip_incomplete: Leave out rows without a user, an item or a time (null or empty), and count
            them. Otherwise such a row is an error.
        collapse_repeats: Of a user's consecutive interactions with the same item, keep only the
            first, with its time and rating. For logs in which one visit is several rows, such as
            view, add to cart and purchase.
        min_user_interactions: Drop users with fewer interactions.
        min_item_interactions: Drop items with fewer interactions.
        max_user_interactions: Drop users with more interactions, such as bots, before anything else
            is dropped for having too few. None: keep them.
        rows_in_memory: Interactions held in memory at once, about 110 bytes each, in addition to
            users and items. The result does not depend on it.
        mirror: URL of a folder to download from, instead of GroupLens.
        cache: Folder for downloads. None: bert4rec-jax in $XDG_CACHE_HOME or ~/.cache.
    """
    from bert4rec_jax.data.columns import Columns
    from bert4rec_jax.data.prepare import prepare

    columns = Columns(
        user_column, item_column, timestamp_column, rating_column, event_column, events,
        timestamp_unit,
    )  # fmt: skip
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
            max_user_interactions=max_user_interactions,
            format=format,
            columns=None if columns == Columns() else columns,
            titles=titles,
            skip_incomplete=skip_incomplete,
            collapse_repeats=collapse_repeats,
            cache=cache,
            mirror=mirror,
            rows_in_memory=rows_in_memory,
            progress=advance,
            notify=lambda sentence: console.print(sentence, markup=False, highlight=False),
        )
    Console().print(_table(prepared.report, output))


def _table(report: Report, output: Path) -> Table:
    """The counts of a preparation, one per line."""
    table = Table("", "", title=escape(f"prepared {output}"), show_header=False)
    for what, count in (
        ("interactions read", report.read),
        ("duplicates dropped", report.duplicates),
        ("users left out: too few interactions", report.users_left_out),
        ("items left out: too few interactions", report.items_left_out),
        ("users", report.users),
        ("items", report.items),
        ("items with a title", report.titled),
        ("interactions", report.interactions),
        ("shortest history", report.shortest),
        ("longest history", report.longest),
    ):
        table.add_row(what, f"{count:,}")
    if report.too_active is not None:
        table.add_row("users left out: too many interactions", f"{report.too_active:,}")
    if report.incomplete is not None:
        table.add_row("incomplete rows, left out", f"{report.incomplete:,}")
    if report.collapsed is not None:
        table.add_row("repeats in a row, left out", f"{report.collapsed:,}")
    if report.other_events:
        table.add_row("rows of other events, left out", f"{report.other_events:,}")
    if report.empty_histories:
        table.add_row("users with an empty list", f"{report.empty_histories:,}")
    if report.unused:
        table.add_row("columns that are not read", escape(", ".join(report.unused)))
    ratings = report.rating_range
    table.add_row("ratings", f"{ratings[0]:g} to {ratings[1]:g}" if ratings else "none")
    days = report.time_range and [
        f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d}" for t in report.time_range
    ]
    table.add_row("time", " to ".join(days) if days else "none: rows as they stand in the log")
    return table
