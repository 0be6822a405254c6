"""Readers: read a log in any known format as blocks of interactions, and its titles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bert4rec_jax.data import delimited, fields, jsonlines, parquet
from bert4rec_jax.data.columns import MOVIELENS, Columns
from bert4rec_jax.data.formats import FORMS, LogFiles, locate
from bert4rec_jax.data.grouped import exploded, is_list
from bert4rec_jax.data.interactions import Interactions
from bert4rec_jax.data.options import Format, TimeUnit
from bert4rec_jax.data.store import sha256
from bert4rec_jax.data.titles import Titles, read_titles
from bert4rec_jax.errors import UserError

_TABLES = ("csv", "tsv", "jsonl", "parquet")
_Stamp = tuple[int, int]
_ROLES = ("user", "item", "timestamp", "rating", "event")


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a log.

    Attributes:
      interactions: in input order. A code means the same id in every block, and the id tables of
        the last block hold all ids. If the log has no times, `timed` is False and the timestamps
        are row numbers.
      empty_histories: number of rows of a grouped log, among those read for this block, that have
        no item.
      events: number of rows of each event, among those read for this block; empty if the log is not
        filtered by event.
    """

    interactions: Interactions
    empty_histories: int
    events: dict[str, int]


@dataclass(frozen=True)
class RawLog:
    """A log in file order, before sorting and filtering; only rows of unwanted events are dropped.

    Attributes:
      path: the file or folder.
      parts: its files, in reading order.
      titles: item id -> (title, genres separated by `|`); may have items that are not in the log.
      format: how the log is read.
      checksums: (name, SHA-256) of the files; the name is the path within the log's folder.
      stamps: (file, size and time of its last change) of the files when they were opened.
    """

    path: Path
    parts: tuple[Part, ...]
    titles: Titles
    format: Format
    checksums: tuple[tuple[str, str], ...]
    stamps: tuple[tuple[Path, _Stamp], ...]

    @property
    def unit(self) -> TimeUnit:
        """Unit of times that are numbers."""
        return self.parts[0].columns.unit

    def blocks(self, rows: int) -> Iterator[Block]:
        """Read the log block by block; memory grows with `rows` and the ids, not with the log.

        Args:
          rows: size of a block, which may have up to one batch of the reader more.

        Raises:
          UserError: a line or value is invalid, a wanted event does not occur, or there is no
            interaction at all.
        """
        users = items = pa.array([], pa.string())
        events: Counter[str] = Counter()
        first = 0
        for chunks in _together((c for part in self.parts for c in part.chunks()), rows):
            block = _block(chunks, users, items, first)
            users, items = block.interactions.user_ids, block.interactions.item_ids
            first += len(block.interactions)
            events.update(block.events)
            yield block
        for part in self.parts[:1]:
            part.require_events(events)
        if not first:
            raise UserError(f"{self.parts[0].path} is empty: it holds no interaction")

    def require_unchanged(self) -> None:
        """Check, once all is read, that the files are those that the checksums are of.

        Raises:
          UserError: a file has changed.
        """
        for file, stamp in self.stamps:
            if not file.exists() or _stamp(file) != stamp:
                raise UserError(
                    f"{file} changed while it was read; start again when nothing writes to it"
                )


def read_log(
    path: Path,
    *,
    format: Format | None = None,
    columns: Columns | None = None,
    titles: Path | None = None,
) -> RawLog:
    """Find the files and columns of a log; `RawLog.blocks` reads the rows.

    Args:
      path: see `formats.locate`.
      format: how to read it; None detects it by name and content.
      columns: names of the columns of `csv`, `tsv`, `jsonl` and `parquet` tables; None takes the
        default names.
      titles: see `titles.read_titles`; None takes the titles file beside the log, if any.

    Raises:
      UserError: a file is invalid; the message names it.
    """
    found = locate(path, format)
    titles = titles or found.titles
    opened = (*found.parts, *([titles] if titles else ()))
    stamps = tuple((file, _stamp(file)) for file in opened if file.exists())
    if columns is not None and found.format not in _TABLES:
        raise UserError(
            f"{path} is read as {found.format}, whose columns are known; leave out the column "
            f"names, or name one of the formats {', '.join(_TABLES)}"
        )
    parts = _parts(found, columns or Columns())
    names = [
        part.relative_to(path).as_posix() if path != part else part.name for part in found.parts
    ]
    files = dict(zip(found.parts, names)) | ({titles: titles.name} if titles else {})
    return RawLog(
        path,
        parts,
        read_titles(titles) if titles else {},
        found.format,
        tuple((name, sha256(file)) for file, name in files.items()),
        stamps,
    )


def _stamp(file: Path) -> _Stamp:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class _Chunk:
    """Some rows of a log; every chunk has id tables of its own."""

    users: pa.DictionaryArray
    items: pa.DictionaryArray
    times: fields.Times | None
    ratings: npt.NDArray[np.float32] | None
    empty_histories: int
    events: dict[str, int]


@dataclass(frozen=True)
class Part:
    """One file of a log.

    Attributes:
      path: the file.
      format: how it is read.
      names: role (user, item, timestamp, rating, event) -> name of the column to read.
      grouped: whether a row is a user with lists of interactions; None if a file without an item
        does not tell, until the other parts do.
      columns: names of the columns, wanted events and unit of time.
    """

    path: Path
    format: Format
    names: dict[str, str]
    grouped: bool | None
    columns: Columns

    def chunks(self) -> Iterator[_Chunk]:
        """Read the file in pieces, with all values validated."""
        first = 0
        for batch in self._batches():
            count, empty = len(batch["user"]), 0
            if not count:
                continue
            where: fields.Where = partial(self._place, first)
            if self.grouped:
                batch, where, empty = exploded(_as_lists(batch), where)
            events: dict[str, int] = {}
            if "event" in batch:
                batch, where, events = _of_events(batch, self.columns.events, where)
            if not len(batch["user"]):  # nothing whose type could be wrong
                batch = dict.fromkeys(batch, pa.nulls(0))
            times = batch.get("timestamp")
            yield _Chunk(
                fields.ids(batch["user"], "user", where),
                fields.ids(batch["item"], "item", where),
                None if times is None else fields.timestamps(times, where, self.columns.unit),
                fields.ratings(batch["rating"], where, may_be_empty=self.format in _TABLES)
                if "rating" in batch
                else None,
                empty,
                events,
            )
            first += count

    def require_events(self, found: Mapping[str, int]) -> None:
        """Check that every wanted event occurs in the log.

        Args:
          found: event -> its number of rows in the log.

        Raises:
          UserError: an event does not occur; names the first one.
        """
        for event in self.columns.events:
            if not found.get(event):
                known = ", ".join(f"{name!r} ({n:,} rows)" for name, n in list(found.items())[:10])
                raise UserError(
                    f"{self.path}: no row has the event {event!r} in {self.columns.event!r}; there "
                    f"are {known}: name some of these with --events"
                )

    def _batches(self) -> Iterator[dict[str, pa.Array]]:
        if self.format == "parquet":
            return parquet.stream(self.path, self.names)
        if self.format == "jsonl":
            return jsonlines.stream(self.path, self.names)
        return delimited.stream(self.path, FORMS[self.format], self.names)

    def _place(self, first: int, row: int) -> str:
        """The place of row `first + row` in the file, for messages."""
        if self.format == "parquet":
            return f"{self.path}, row {first + row + 1}"
        if self.format == "jsonl":
            return f"{self.path}, line {jsonlines.line_of(self.path, first + row)}"
        return f"{self.path}, line {delimited.line_of(self.path, FORMS[self.format], first + row)}"


def _parts(log: LogFiles, columns: Columns) -> tuple[Part, ...]:
    parts = tuple(_part(path, log.format, columns) for path in log.parts)
    forms = [part.grouped for part in parts if part.grouped is not None]
    parts = tuple(
        replace(part, grouped=any(forms)) if part.grouped is None else part for part in parts
    )
    for part in parts[1:]:
        if part.names != parts[0].names:
            raise UserError(
                f"{part.path} has other columns than {parts[0].path} "
                f"({sorted(part.names.values())} and {sorted(parts[0].names.values())}); give all "
                "parts the same columns"
            )
        if part.grouped != parts[0].grouped:
            kinds = {False: "a row per interaction", True: "a row per user, with lists"}
            raise UserError(
                f"{part.path} has {kinds[bool(part.grouped)]}, but {parts[0].path} has "
                f"{kinds[bool(parts[0].grouped)]}; give all parts the same form"
            )
    return parts


def _part(path: Path, format: Format, columns: Columns) -> Part:
    if format in ("parquet", "jsonl"):
        schema = parquet.schema(path) if format == "parquet" else _of_lines(path, columns)
        names = columns.find(path, schema.names, lenient=True)
        return Part(path, format, names, _is_grouped(path, schema, names), columns)
    form = FORMS[format]
    if not form.headed:
        return Part(path, format, {name: name for name in form.names}, False, columns)
    present = delimited.header(path, form)
    if format == "movielens-csv":
        return Part(path, format, MOVIELENS.find(path, present, lenient=False), False, MOVIELENS)
    return Part(path, format, columns.find(path, present, lenient=True), False, columns)


def _of_lines(path: Path, columns: Columns) -> pa.Schema:
    names = (columns.user, columns.item, columns.timestamp, columns.rating, columns.event)
    return jsonlines.schema(path, dict(zip(_ROLES, names)))


def _is_grouped(path: Path, schema: pa.Schema, names: dict[str, str]) -> bool | None:
    """Whether the items are lists; None if there is none.

    Raises:
      UserError: they are, but times, ratings or events are not, or the user is a list too.
    """
    items = schema.field(names["item"]).type
    if pa.types.is_null(items):
        return None
    if not is_list(items):
        return False
    for role, name in names.items():
        kind = schema.field(name).type
        if is_list(kind) != (role != "user"):
            wanted = "one value" if role == "user" else "a list"
            raise UserError(
                f"{path}: the items {names['item']!r} are lists, a row per user, so the {role} "
                f"{name!r} has to be {wanted} in each row, but is of type {kind}: convert it, or "
                f"name another column with --{role}-column"
            )
    return True


def _as_lists(batch: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """A batch of a grouped log whose columns without any value, which have no type, are lists."""
    return {
        role: column.cast(pa.list_(pa.string()))
        if role != "user" and pa.types.is_null(column.type)
        else column
        for role, column in batch.items()
    }


def _of_events(
    batch: Mapping[str, pa.Array], wanted: Sequence[str], where: fields.Where
) -> tuple[dict[str, pa.Array], fields.Where, dict[str, int]]:
    """The rows with a wanted event, a `where` for them, and the number of rows of each event."""
    kept, counts = fields.chosen(batch["event"], wanted, where)
    rows = np.flatnonzero(kept.to_numpy(zero_copy_only=False))
    chosen = {role: column.filter(kept) for role, column in batch.items()}
    return chosen, lambda row: where(int(rows[row])), counts


def _together(chunks: Iterable[_Chunk], rows: int) -> Iterator[list[_Chunk]]:
    """Chunks in lists of at least `rows` rows; the last list has the remainder."""
    taken: list[_Chunk] = []
    count = 0
    for chunk in chunks:
        taken.append(chunk)
        count += len(chunk.users)
        if count >= rows:
            yield taken
            taken, count = [], 0
    if taken:
        yield taken


def _block(
    chunks: list[_Chunk], user_ids: pa.StringArray, item_ids: pa.StringArray, first: int
) -> Block:
    """Merge chunks into a block that extends the id tables; `first` rows of the log precede it."""
    users, user_ids = _coded([chunk.users for chunk in chunks], user_ids)
    items, item_ids = _coded([chunk.items for chunk in chunks], item_ids)
    times = [chunk.times for chunk in chunks if chunk.times is not None]
    ratings = [chunk.ratings for chunk in chunks if chunk.ratings is not None]
    interactions = Interactions(
        users=users,
        items=items,
        timestamps=np.concatenate([each.seconds for each in times])
        if times
        else np.arange(first, first + len(users)),
        ratings=np.concatenate(ratings) if ratings else np.full(len(users), np.nan, np.float32),
        user_ids=user_ids,
        item_ids=item_ids,
        timed=bool(times),
        fractions=_fractions(times),
    )
    events: Counter[str] = Counter()
    for chunk in chunks:
        events.update(chunk.events)
    return Block(interactions, sum(chunk.empty_histories for chunk in chunks), events)


def _fractions(times: list[fields.Times]) -> npt.NDArray[np.int32] | None:
    """The fractions of all times; None if none has any."""
    if all(each.fractions is None for each in times):
        return None
    return np.concatenate(
        [
            np.zeros(len(each.seconds), np.int32) if each.fractions is None else each.fractions
            for each in times
        ]
    )


def _coded(
    chunks: list[pa.DictionaryArray], ids: pa.StringArray
) -> tuple[npt.NDArray[np.int32], pa.StringArray]:
    """Codes into `ids` followed by the new ids in order of first appearance, and all these ids."""
    before = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), ids)
    unified = pa.chunked_array([before, *chunks]).unify_dictionaries().chunks
    return np.concatenate([chunk.indices.to_numpy() for chunk in unified]), unified[0].dictionary
