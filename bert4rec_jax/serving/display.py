"""Display: recommendation lists, and the progress and counts of a batch job, on the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.serving.filters import EVERYTHING, Filters
from bert4rec_jax.serving.job import Progress as JobProgress
from bert4rec_jax.serving.lookup import find_item
from bert4rec_jax.serving.scorer import Answer, load

_PLAIN_EVERY = 15.0  # seconds between lines of progress without a terminal
_COUNTS = {
    "requests": "requests",
    "duplicate_users": "users with an earlier request, answered again",
    "late_requests": "more than 60 days after the training data ends",
    "empty_histories": "histories without an item of the catalog",
    "null_lists": "null lists, read as empty",
    "history_items": "items in histories",
    "unknown_history_items": "of them not in the catalog, skipped",
    "later_history_items": "of them seen after the time of the request, read as seen then",
    "candidates": "candidates",
    "unknown_candidates": "of them not in the catalog, left out",
    "repeated_candidates": "of them named again, listed once",
    "excluded_candidates": "of them seen or excluded, left out",
    "unlisted_candidates": "of them that cannot be scored or do not pass the filters, left out",
    "unknown_excluded_items": "excluded items not in the catalog",
}


def show_recommendations(
    bundle: Path,
    titles: Sequence[str],
    k: int,
    filters: Filters = EVERYTHING,
    user: Mapping[str, Any] | None = None,
    request_time: str | None = None,
) -> None:
    """Print the recommendations for a history of items, given by title or id.

    Raises:
      UserError: see `Bundle.open`, `Filters.allowed`, `find_item` and `Scorer.recommend`.
    """
    scorer = load(bundle, filters=filters)
    catalog = scorer.catalog
    seen = [find_item(catalog, title) for title in titles]
    history = [catalog.item_id(token) for token in seen]
    answer = scorer.recommend(history, k, user=user, request_time=request_time)
    after = ", ".join(catalog.title(token) for token in seen) or "nothing"
    _show(f"after {after}", answer, catalog, "score")


def show_similar(bundle: Path, title: str, k: int) -> None:
    """Print the items most similar to one that is given by title or id.

    Raises:
      UserError: see `Bundle.open`, `find_item` and `Scorer.similar`.
    """
    scorer = load(bundle)
    catalog = scorer.catalog
    token = find_item(catalog, title)
    answer = scorer.similar(catalog.item_id(token), k)
    _show(f"like {catalog.title(token)}", answer, catalog, "cosine")


def _show(title: str, answer: Answer, catalog: Catalog, value: str) -> None:
    table = Table(title=escape(title), title_justify="left")
    table.add_column("", justify="right")
    for name in ("title", "genres", "id"):
        table.add_column(name)
    table.add_column(value, justify="right")
    for place, (item, name, score) in enumerate(
        zip(answer.item_ids, answer.titles, answer.scores), start=1
    ):
        genres = ", ".join(catalog.genres_of(catalog.token(item)))
        table.add_row(str(place), escape(name), escape(genres), escape(item), f"{score:.3f}")
    Console().print(table)


def counts_table(title: str, counts: Mapping[str, int]) -> Table:
    """A table of a job's counts; counts of 0 are left out, except the number of requests."""
    table = Table("", "", title=escape(title), show_header=False, title_justify="left")
    for name, text in _COUNTS.items():
        if counts.get(name) or name == "requests":
            table.add_row(text, f"{counts.get(name, 0):,}")
    return table


@contextmanager
def job_progress(console: Console) -> Iterator[JobProgress]:
    """Show a bar with rate and time left; without a terminal, print a line every 15 seconds."""
    bar = Progress(
        TextColumn("ranking"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,} requests"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console,
        disable=not console.is_terminal,
    )
    task: Any = None
    first, started, last_plain = 0, 0.0, 0.0
    with bar:

        def advance(done: int, total: int) -> None:
            nonlocal task, first, started, last_plain
            now = time.monotonic()
            if task is None:
                task = bar.add_task("", total=total, completed=done, rate="compiling")
                first, started, last_plain = done, now, now
                if done > 0:
                    console.print(f"{done:,} of {total:,} requests are done", highlight=False)
                return
            rate = (done - first) / max(now - started, 1e-9)
            bar.update(task, completed=done, rate=f"{rate:,.0f}/s")
            if not console.is_terminal and (now - last_plain >= _PLAIN_EVERY or done == total):
                left = (total - done) / max(rate, 1e-9)
                console.print(
                    f"{done:,}/{total:,} requests, {rate:,.0f}/s, {left:,.0f} s left",
                    highlight=False,
                )
                last_plain = now

        yield advance
