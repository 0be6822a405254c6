"""Prepare: from a data set's name or a log to a store, ready to train on."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data import download
from bert4rec_jax.data.columns import Columns
from bert4rec_jax.data.format_names import Format
from bert4rec_jax.data.readers import RawLog, read_log
from bert4rec_jax.data.store import SequenceStore, is_store, require_replaceable, write_store
from bert4rec_jax.errors import UserError

MOVIETWEETINGS = "movietweetings"
NAMES = (MOVIETWEETINGS, *download.NAMES)


@dataclass(frozen=True)
class Report:
    """What came in and what is left of it.

    Attributes:
      read: interactions in the log.
      duplicates: of these, repeated (user, item, timestamp) rows, which were dropped.
      users: users in the store.
      items: items in the store.
      interactions: interactions in the store.
      shortest: interactions of the user with the fewest.
      longest: interactions of the user with the most.
      rating_range: lowest and highest rating of the log; None without ratings.
      time_range: first and last second in the store; None without times.
      titled: items in the store that have a title.
    """

    read: int
    duplicates: int
    users: int
    items: int
    interactions: int
    shortest: int
    longest: int
    rating_range: tuple[float, float] | None
    time_range: tuple[int, int] | None
    titled: int


@dataclass(frozen=True)
class Prepared:
    """A store and how it came about."""

    store: SequenceStore
    report: Report


def prepare(
    source: str | Path,
    output: Path,
    *,
    min_user_interactions: int = 5,
    min_item_interactions: int = 5,
    format: Format | None = None,
    columns: Columns | None = None,
    titles: Path | None = None,
    cache: Path | None = None,
    mirror: str | None = None,
    progress: download.Progress = lambda done, total: None,
    notify: download.Notify = lambda sentence: None,
) -> Prepared:
    """Read a log, sort it by time, filter it to its k-core and write it as a store.

    The same input gives the same store, byte for byte. Its manifest keeps, under `source`, the name
    of what was read (no path), a SHA-256 per file, the filters, and `max_rating` of the log (None
    without ratings), from which the thresholds of thumbs follow.

    Args:
      source: one of `NAMES`, or the path of a log; `./ml-1m` is a path, `ml-1m` is the name.
      output: the folder to make, or an earlier store to replace.
      min_user_interactions: users with fewer are left out, together with
      min_item_interactions: items with fewer, until neither is left.
      format: see `readers.read_log`; for paths only.
      columns: see `readers.read_log`; for paths only.
      titles: a file of titles, see `titles.read_titles`; None takes those of the data set.
      cache: where downloads lie, see `download.fetch`.
      mirror: where they come from, see `download.fetch`.
      progress: see `download.Progress`.
      notify: see `download.Notify`.

    Raises:
      UserError: anything the user can mend; nothing is half-written.
    """
    require_replaceable(output)
    if source in NAMES:
        if format or columns:
            raise UserError(
                f"the format of {source} is known; leave out the format and the column names, or "
                f"give ./{source} if you mean a file or folder of that name"
            )
        log = _known(str(source), titles, cache, mirror, progress, notify)
    else:
        path = Path(source)
        if not path.exists():
            raise UserError(_unknown(str(source)))
        if is_store(path):
            raise UserError(f"{path} is prepared already; give the log that it was made from")
        log = read_log(path, format=format, columns=columns, titles=titles)
    ordered = log.interactions.in_time_order()
    kept = ordered.k_core(min_user=min_user_interactions, min_item=min_item_interactions)
    rating_range = _range(log.interactions.ratings)
    store = write_store(
        kept,
        output,
        titles=log.titles,
        source={
            "name": _name(source),
            "format": log.format,
            "files": [{"name": name, "sha256": checksum} for name, checksum in log.checksums],
            "min_user_interactions": min_user_interactions,
            "min_item_interactions": min_item_interactions,
            "read": len(log.interactions),
            "duplicates": len(log.interactions) - len(ordered),
            "max_rating": rating_range[1] if rating_range else None,
        },
    )
    lengths = store.lengths
    report = Report(
        read=len(log.interactions),
        duplicates=len(log.interactions) - len(ordered),
        users=store.num_users,
        items=len(store.catalog),
        interactions=store.num_interactions,
        shortest=int(lengths.min()),
        longest=int(lengths.max()),
        rating_range=rating_range,
        time_range=_range_of_times(store) if store.timed else None,
        titled=sum(item_id in log.titles for item_id in store.catalog.item_ids),
    )
    return Prepared(store, report)


def is_prepared_from(
    path: Path, source: str | Path, *, min_user_interactions: int, min_item_interactions: int
) -> bool:
    """Whether a folder holds what `prepare` makes of a source of this name with these filters."""
    if not is_store(path):
        return False
    made = SequenceStore.open(path).manifest["source"]
    wanted = {
        "name": _name(source),
        "min_user_interactions": min_user_interactions,
        "min_item_interactions": min_item_interactions,
    }
    return all(made.get(name) == value for name, value in wanted.items())


def _name(source: str | Path) -> str:
    return str(source) if source in NAMES else Path(source).resolve().name


def _known(
    name: str,
    titles: Path | None,
    cache: Path | None,
    mirror: str | None,
    progress: download.Progress,
    notify: download.Notify,
) -> RawLog:
    """Read a data set that has a name."""
    if name != MOVIETWEETINGS:
        folder = download.fetch(
            name, cache=cache, base_url=mirror, progress=progress, notify=notify
        )
        return read_log(folder, titles=titles)
    shipped = resources.files("bert4rec_jax.data") / MOVIETWEETINGS
    with (
        resources.as_file(shipped / "ratings.dat.xz") as ratings,
        resources.as_file(shipped / "movies.dat.xz") as movies,
    ):
        return read_log(ratings, format="movielens-dat", titles=titles or movies)


def _unknown(source: str) -> str:
    close = difflib.get_close_matches(source, NAMES, cutoff=0.5)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    return (
        f"{source} does not exist, and no data set has this name{hint}; give a log file, a folder "
        f"or one of {', '.join(NAMES)}"
    )


def _range(ratings: npt.NDArray[np.float32]) -> tuple[float, float] | None:
    rated = ratings[~np.isnan(ratings)]
    return (float(rated.min()), float(rated.max())) if len(rated) else None


def _range_of_times(store: SequenceStore) -> tuple[int, int]:
    return int(store.timestamps.min()), int(store.timestamps.max())
