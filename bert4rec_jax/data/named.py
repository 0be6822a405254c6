"""Named data sets: the one that ships with the package, and those that are downloaded."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from bert4rec_jax.data import download
from bert4rec_jax.data.readers import RawLog, read_log
from bert4rec_jax.errors import Notify

MOVIETWEETINGS = "movietweetings"
NAMES = (MOVIETWEETINGS, *download.NAMES)


@contextmanager
def open_named(
    name: str,
    titles: Path | None,
    cache: Path | None,
    mirror: str | None,
    progress: download.Progress,
    notify: Notify,
) -> Iterator[RawLog]:
    """Open one of the named data sets as a log.

    Args:
      name: one of `NAMES`.
      titles: a file of titles, see `titles.read_titles`; None takes the one of the data set.
      cache, mirror, progress, notify: of downloads, see `prepare`.

    Raises:
      UserError: see `download.fetch` and `readers.read_log`.
    """
    if name != MOVIETWEETINGS:
        folder = download.fetch(
            name, cache=cache, base_url=mirror, progress=progress, notify=notify
        )
        yield read_log(folder, titles=titles)
        return
    shipped = resources.files("bert4rec_jax.data") / MOVIETWEETINGS
    with (
        resources.as_file(shipped / "ratings.dat.xz") as ratings,
        resources.as_file(shipped / "movies.dat.xz") as movies,
    ):
        yield read_log(ratings, format="movielens-dat", titles=titles or movies)


def unknown_name(source: str) -> str:
    """What is said of a source that is neither a path nor one of `NAMES`."""
    close = difflib.get_close_matches(source, NAMES, cutoff=0.5)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    return (
        f"{source} does not exist, and no data set has this name{hint}; give a log file, a folder "
        f"or one of {', '.join(NAMES)}"
    )
