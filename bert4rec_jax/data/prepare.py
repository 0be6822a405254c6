"""Prepare: turn a named data set, a log or a table into a store ready for training."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.checks import require, require_a, require_path, require_whole
from bert4rec_jax.data import download
from bert4rec_jax.data.columns import Columns, columns_of
from bert4rec_jax.data.external_sort import Runs
from bert4rec_jax.data.interactions import Interactions
from bert4rec_jax.data.k_core import Core, k_core
from bert4rec_jax.data.named import NAMES, open_named, unknown_name
from bert4rec_jax.data.options import ROWS_IN_MEMORY, Format
from bert4rec_jax.data.plausibility import doubt, require_fitting_unit
from bert4rec_jax.data.readers import RawLog, read_log
from bert4rec_jax.data.rows import Rows
from bert4rec_jax.data.store import SequenceStore, fill_store, is_store, require_replaceable
from bert4rec_jax.data.tables import TABLE, ArrowTable, table_log
from bert4rec_jax.errors import Notify, UserError, warn
from bert4rec_jax.outputs import whole_folder

# Of rows and users: in a manifest only if they were made.
_CHOICES = ("events", "incomplete", "collapsed", "max_user_interactions")


@dataclass(frozen=True)
class Report:
    """Statistics of a log and of the store made from it.

    Attributes:
      read: interactions in the log; those that were left out as incomplete do not count.
      duplicates: repeated (user, item, second) rows among them, which were dropped.
      users: users in the store.
      items: items in the store.
      interactions: interactions in the store.
      shortest: interactions of the user with the fewest.
      longest: interactions of the user with the most.
      rating_range: lowest and highest rating of the log; None without ratings.
      time_range: first and last timestamp in the store, in seconds since 1970; None without times.
      titled: items in the store that have a title, other than their id.
      empty_histories: rows of a grouped log without an item, which hold no interaction.
      other_events: rows that were left out because of their event type.
      users_left_out: users of the log with too few interactions.
      items_left_out: items of the log with too few interactions.
      incomplete: interactions that were left out because they lack a user, an item or a time; None
        if they were to be refused.
      collapsed: interactions with the same item as the user's last one that were left out; None if
        they were to be kept.
      too_active: users of the log with more interactions than the maximum, who were left out; None
        without a maximum.
      unused: columns of the log that were not read.
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
    empty_histories: int = 0
    other_events: int = 0
    users_left_out: int = 0
    items_left_out: int = 0
    incomplete: int | None = None
    collapsed: int | None = None
    too_active: int | None = None
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparedStore:
    """A store, and the report on how it was made."""

    store: SequenceStore
    report: Report


def prepare(
    source: str | Path | ArrowTable,
    output: str | Path,
    *,
    min_user_interactions: int = 5,
    min_item_interactions: int = 5,
    max_user_interactions: int | None = None,
    format: Format | None = None,
    columns: Columns | Mapping[str, Any] | None = None,
    titles: str | Path | None = None,
    skip_incomplete: bool = False,
    collapse_repeats: bool = False,
    cache: str | Path | None = None,
    mirror: str | None = None,
    rows_in_memory: int = ROWS_IN_MEMORY,
    progress: download.Progress = lambda done, total: None,
    notify: Notify = warn,
) -> PreparedStore:
    """Read a log, sort it by time, filter it to its k-core and write it as a store.

    Memory grows with the number of users and items and with `rows_in_memory`, not with the log.
    Rows that do not fit are kept in a hidden temporary folder beside the output, 40 bytes per
    interaction, or 44 if times have fractions of a second.

    The same input gives the same store, byte for byte. The store's manifest holds, under `source`,
    the name of what was read (without its path), a SHA-256 per file, the filters, and the log's
    `max_rating` (None without ratings), from which the default thresholds of thumbs follow. Chosen
    `events` and a maximum of interactions are there as well, and the counts `incomplete` and
    `collapsed` if such rows were to be left out.

    Args:
      source: one of `NAMES`, the path of a log (`./ml-1m` is a path, `ml-1m` is the name), or a
        table, such as a data frame of pandas or polars.
      output: the folder to make, or an earlier store to replace.
      min_user_interactions: users with fewer interactions are left out.
      min_item_interactions: items with fewer interactions are left out. Both filters are repeated
        until nothing changes.
      max_user_interactions: users with more interactions, such as bots, are left out before that;
        None: no user is.
      format: see `readers.read_log`; for paths only.
      columns: see `readers.read_log`, or a dict of its fields; for paths and tables only.
      titles: a file of titles, see `titles.read_titles`; None takes the one of the data set.
      skip_incomplete: leave out, and count, rows without a user id, an item id or (where there is a
        column of times) a time: null or empty text. Otherwise the first such row is an error. In a
        log with a row per user, it holds for the entries of the lists.
      collapse_repeats: of a user's consecutive interactions with the same item, keep only the
        first, with its time and rating, before users and items are filtered.
      cache: folder for downloads, see `download.fetch`; for data sets that are downloaded only.
      mirror: URL to download from, see `base_url` of `download.fetch`; as for `cache`.
      rows_in_memory: interactions read, sorted or filtered at once, at about 110 bytes each; the
        store is the same for any number.
      progress: see `download.Progress`.
      notify: called with a sentence about what may be a mistake; by default a Python warning.

    Raises:
      UserError: anything the user can fix; no partial output is left.
    """
    output = require_path(output, "output")
    if isinstance(columns, Mapping):
        columns = columns_of(columns)
    elif columns is not None:
        require_a(Columns, columns, "columns", "Columns, or a dict of its fields")
    titles = None if titles is None else require_path(titles, "titles")
    cache = None if cache is None else Path(cache)
    require_replaceable(output)
    rows_in_memory = require_whole(rows_in_memory, "rows_in_memory")
    require(rows_in_memory >= 1, "rows_in_memory", rows_in_memory, "at least 1")
    require_a(bool, skip_incomplete, "skip_incomplete", "True or False")
    require_a(bool, collapse_repeats, "collapse_repeats", "True or False")
    minima = {
        "min_user_interactions": require_whole(min_user_interactions, "min_user_interactions"),
        "min_item_interactions": require_whole(min_item_interactions, "min_item_interactions"),
    }
    for name, least in minima.items():
        require(least >= 1, name, least, "at least 1")
    most = max_user_interactions
    most = None if most is None else require_whole(most, "max_user_interactions")
    if most is not None and most < min_user_interactions:
        raise UserError(
            f"max_user_interactions is {most}; expected at least min_user_interactions, "
            f"{min_user_interactions}, or no user is left"
        )
    opened: AbstractContextManager[RawLog]
    if not isinstance(source, str | Path):
        opened = table_log(source, output, format, columns, titles)
        source = TABLE
    elif source in NAMES:
        if format or columns:
            raise UserError(
                f"the format of {source} is known; leave out the format and the column names, or "
                f"give ./{source} if you mean a file or folder of that name"
            )
        opened = open_named(str(source), titles, cache, mirror, progress, notify)
    else:
        path = Path(source)
        if not path.exists():
            raise UserError(unknown_name(str(source)))
        if is_store(path):
            raise UserError(f"{path} is prepared already; give the log that it was made from")
        opened = nullcontext(read_log(path, format=format, columns=columns, titles=titles))
    if source not in download.NAMES:
        for name, value in (("cache", cache), ("mirror", mirror)):
            if value is not None:
                raise UserError(
                    f"{name} is {value}, but {source} is not downloaded; leave {name} out"
                )
    times = _Range()
    with opened as log, whole_folder(output) as folder, Rows(folder / "ordered") as ordered:
        found = _in_time_order(
            log,
            folder / "read",
            ordered,
            rows_in_memory,
            skip_incomplete=skip_incomplete,
            collapse_repeats=collapse_repeats,
        )
        log.require_unchanged()
        if found.doubt:
            notify(f"{_name(source)}: {found.doubt}")
        users, items = ordered.sizes
        pairs = partial(ordered.pairs, rows_in_memory)
        core = k_core(pairs, users, items, **minima, max_user_interactions=most)
        about: dict[str, Any] = {
            "name": _name(source),
            "format": log.format,
            "files": [{"name": name, "sha256": checksum} for name, checksum in log.checksums],
            **minima,
            "read": found.read,
            "duplicates": found.duplicates,
            "max_rating": found.ratings.found and found.ratings.found[1],
        }
        events = list(columns.events) if columns and columns.events else None
        chosen = zip(_CHOICES, (events, found.incomplete, found.collapsed, most))
        about |= {name: value for name, value in chosen if value is not None}
        pieces = _kept(ordered.pieces(rows_in_memory), core, times)
        fill_store(folder, pieces, titles=log.titles, source=about)
    store = SequenceStore.open(output.resolve())
    known = store.catalog.item_ids
    if titles is not None and log.titles and log.titles.keys().isdisjoint(known):
        notify(
            f"{titles}: none of its ids (such as {next(iter(log.titles))!r}) is one of the items "
            f"(such as {known[0]!r}), which have no titles then; write ids as in the log: "
            "text keeps its zeros, whole numbers have none"
        )
    lengths = store.lengths
    report = Report(
        read=found.read,
        duplicates=found.duplicates,
        users=store.num_users,
        items=len(store.catalog),
        interactions=store.num_interactions,
        shortest=int(lengths.min()),
        longest=int(lengths.max()),
        rating_range=found.ratings.found,
        time_range=times.found if store.timed else None,
        titled=sum(map(operator.ne, store.catalog.titles, store.catalog.item_ids)),
        empty_histories=found.empty_histories,
        other_events=found.other_events,
        users_left_out=users - store.num_users - core.too_active,
        items_left_out=items - len(store.catalog),
        incomplete=found.incomplete,
        collapsed=found.collapsed,
        too_active=None if most is None else core.too_active,
        unused=log.unused,
    )
    return PreparedStore(store, report)


class _Range:
    """The minimum and maximum of the values seen so far, ignoring NaN; None before the first."""

    def __init__(self) -> None:
        """Start without a value."""
        self.found: tuple[Any, Any] | None = None

    def widen(self, values: npt.NDArray[Any]) -> None:
        """Include more values."""
        values = values[~np.isnan(values)]
        if len(values):
            ends = (values.min().item(), values.max().item(), *(self.found or ()))
            self.found = min(ends), max(ends)


@dataclass(frozen=True)
class _Read:
    """Statistics of a log, see `Report`."""

    read: int
    duplicates: int
    empty_histories: int
    other_events: int
    incomplete: int | None
    collapsed: int | None
    ratings: _Range
    doubt: str | None


def _in_time_order(
    log: RawLog,
    scratch: Path,
    ordered: Rows,
    rows: int,
    *,
    skip_incomplete: bool,
    collapse_repeats: bool,
) -> _Read:
    """Sort a log into `ordered`, with a temporary folder `scratch`, and return its statistics.

    The other arguments are those of `prepare`.

    Raises:
      UserError: a value is invalid, or the times have another unit.
    """
    empty, others, incomplete, ratings, times = 0, 0, 0, _Range(), _Range()
    with Rows(scratch) as read:
        runs = Runs(read)
        for block in log.blocks(rows, skip_incomplete=skip_incomplete):
            runs.append(block.interactions)
            ratings.widen(block.interactions.ratings)
            if block.interactions.timed:
                times.widen(block.interactions.timestamps)
            empty += block.empty_histories
            incomplete += block.incomplete
            if block.events:
                wanted = len(block.interactions) + block.incomplete
                others += sum(block.events.values()) - wanted
        if times.found:
            require_fitting_unit(log.path, times.found, log.unit)
        different = 0
        for piece in runs.in_time_order(rows):
            different += len(piece)
            ordered.append(piece.without_repeats() if collapse_repeats else piece)
        doubted = times.found and len(read) > 1 and doubt(times.found, log.unit)
        return _Read(
            read=len(read),
            duplicates=len(read) - different,
            empty_histories=empty,
            other_events=others,
            incomplete=incomplete if skip_incomplete else None,
            collapsed=different - len(ordered) if collapse_repeats else None,
            ratings=ratings,
            doubt=doubted or None,
        )


def _kept(pieces: Iterable[Interactions], core: Core, times: _Range) -> Iterator[Interactions]:
    """The rows whose user and item are both kept; widens `times` to their timestamps."""
    for piece in pieces:
        kept = piece.take(core.users[piece.users] & core.items[piece.items])
        times.widen(kept.timestamps)
        yield kept


def is_prepared_from(
    path: Path, source: str | Path, *, min_user_interactions: int, min_item_interactions: int
) -> bool:
    """Whether a folder holds the store that `prepare` makes of a source with these filters alone.

    Files are compared by checksum, whatever their names; by name if they no longer exist. Named
    data sets never change.

    Raises:
      UserError: see `read_log`.
    """
    if not is_store(path):
        return False
    made = SequenceStore.open(path).manifest["source"]
    wanted: dict[str, Any] = {
        **dict.fromkeys(_CHOICES),
        "min_user_interactions": min_user_interactions,
        "min_item_interactions": min_item_interactions,
    }
    if source in NAMES or not Path(source).exists():
        wanted["name"] = _name(source)
    else:
        checksums = [checksum for _, checksum in read_log(Path(source)).checksums]
        if [file["sha256"] for file in made["files"]] != checksums:
            return False
    return all(made.get(name) == value for name, value in wanted.items())


def _name(source: str | Path) -> str:
    return str(source) if source in NAMES else Path(source).resolve().name
