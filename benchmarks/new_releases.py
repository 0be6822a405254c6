"""Where movies that nobody has watched stand in the catalog, by how long they have been out.

    python train.py --data.path data/movies --data.split cold-items --data.content content/cold \\
        --model.times --calibration.no-covisitation --workdir runs/cold-timed
    python benchmarks/new_releases.py runs/cold-timed

Takes the most watched of the movies that the split holds out for the test and that came out while
the log was written. For each, prints its place in the whole catalog after one history, for requests
from three weeks before its release on. Ends with one JSON line.
"""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from bert4rec_jax import explain, export, load
from bert4rec_jax.data.batch import SECONDS_PER_DAY
from bert4rec_jax.data.cold import choose_cold
from bert4rec_jax.errors import UserError
from bert4rec_jax.experiment.opening import reopen

AFTER = (-21, -7, -1, 1, 7, 21, 60, 120)  # days since the release


def main(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    history: tuple[str, ...] = ("0133093", "0083658"),
    movies: int = 6,
) -> None:
    """Show the places of held-out movies.

    Args:
        run: The folder of a run of the split cold-items with --model.times and dates of release.
        history: The ids of the movies that were seen.
        movies: How many held-out movies to show.
    """
    setting = reopen(run, Console(quiet=True))
    known = setting.known_content
    if setting.split.cold_validation is None or not setting.config.model.times or known is None:
        raise UserError(f"{run} is no run of the split cold-items with --model.times and content")
    store = setting.source
    begin, end = (t / SECONDS_PER_DAY for t in (store.timestamps.min(), store.timestamps.max()))
    released = known.release_days
    if released is None:
        raise UserError(f"the content of {run} has no dates of release")
    counts = np.bincount(store.tokens, minlength=store.catalog.num_rows)
    shown = np.flatnonzero(choose_cold(store).test & (released > begin - min(AFTER)))
    shown = shown[np.argsort(-counts[shown], kind="stable")][:movies]
    table = Table("held-out movie", box=None)
    for name in ("released", "events", *(f"{day:+d} d" for day in AFTER)):
        table.add_column(name, justify="right", no_wrap=True)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        export(run, Path(folder) / "bundle")
        scorer = load(Path(folder) / "bundle")
        for token in map(int, shown):
            places = []
            for after in AFTER:
                day = float(released[token]) + after
                asked = int(day * SECONDS_PER_DAY)
                item = store.catalog.item_id(token)
                found = explain(scorer, history, item, request_time=asked) if day <= end else None
                places.append(None if found is None else found.rank)
            date = datetime.fromtimestamp(float(released[token]) * SECONDS_PER_DAY, UTC).date()
            title = setting.catalog.title(token)
            texts = ("" if place is None else f"{place:,}" for place in places)
            table.add_row(title, str(date), f"{counts[token]:,}", *texts)
            lines.append({"title": title, "released": str(date), "places": places})
    Console().print(table)
    print(json.dumps({"after": AFTER, "movies": lines}))


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
