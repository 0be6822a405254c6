"""Readers: read a log in any known format as blocks of interactions, and its titles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bert4rec_jax.data import fields
from bert4rec_jax.data.columns import Columns
from bert4rec_jax.data.formats import locate
from bert4rec_jax.data.interactions import Interactions
from bert4rec_jax.data.options import Format, TimeUnit, option
from bert4rec_jax.data.parts import TABLES, Chunk, Part, parts_of
from bert4rec_jax.data.store import sha256
from bert4rec_jax.data.titles import Titles, read_titles
from bert4rec_jax.errors import UserError

_Stamp = tuple[int, int]


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
      incomplete: number of interactions, among those read for this block, that lack a user, an item
        or a time and were left out.
    """

    interactions: Interactions
    empty_histories: int
    events: dict[str, int]
    incomplete: int


@dataclass(frozen=True)
class RawLog:
    """A log in file order, before sorting and filtering by counts.

    Only rows of unwanted events are dropped, and incomplete ones if that is asked for.

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

    @property
    def unused(self) -> tuple[str, ...]:
        """Columns of the first file that are not read."""
        return self.parts[0].unused

    def blocks(self, rows: int, *, skip_incomplete: bool = False) -> Iterator[Block]:
        """Read the log block by block; memory grows with `rows` and the ids, not with the log.

        Args:
          rows: size of a block, which may have up to one batch of the reader more.
          skip_incomplete: see `Part.chunks`.

        Raises:
          UserError: a line or value is invalid, a wanted event does not occur, or there is no
            interaction at all.
        """
        users = items = pa.array([], pa.string())
        events: Counter[str] = Counter()
        first = incomplete = 0
        read = (part.chunks(skip_incomplete=skip_incomplete) for part in self.parts)
        for chunks in _together(chain.from_iterable(read), rows):
            block = _block(chunks, users, items, first)
            users, items = block.interactions.user_ids, block.interactions.item_ids
            first += len(block.interactions)
            incomplete += block.incomplete
            events.update(block.events)
            yield block
        for part in self.parts[:1]:
            part.require_events(events)
        if incomplete and not first:
            raise UserError(
                f"{self.path} has no row with a user, an item and a time: {incomplete:,} rows are "
                "incomplete; name the right columns with "
                + option("--user-column, --item-column and --timestamp-column", "columns")
            )
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
      titles: see `titles.read_titles`, the column of ids may be called as in the log; None takes
        the titles file beside the log, if any.

    Raises:
      UserError: a file is invalid; the message names it.
    """
    found = locate(path, format)
    titles = titles or found.titles
    opened = (*found.parts, *([titles] if titles else ()))
    stamps = tuple((file, _stamp(file)) for file in opened if file.exists())
    if columns is not None and found.format not in TABLES:
        raise UserError(
            f"{path} is read as {found.format}, whose columns are known; leave out the column "
            f"names, or name one of the formats {', '.join(TABLES)}"
        )
    parts = parts_of(found, columns or Columns())
    names = [
        part.relative_to(path).as_posix() if path != part else part.name for part in found.parts
    ]
    files = dict(zip(found.parts, names)) | ({titles: titles.name} if titles else {})
    return RawLog(
        path,
        parts,
        read_titles(titles, columns.item if columns else None) if titles else {},
        found.format,
        tuple((name, sha256(file)) for file, name in files.items()),
        stamps,
    )


def _stamp(file: Path) -> _Stamp:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _together(chunks: Iterable[Chunk], rows: int) -> Iterator[list[Chunk]]:
    """Chunks in lists of at least `rows` rows; the last list has the remainder."""
    taken: list[Chunk] = []
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
    chunks: list[Chunk], user_ids: pa.StringArray, item_ids: pa.StringArray, first: int
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
    return Block(
        interactions,
        sum(chunk.empty_histories for chunk in chunks),
        events,
        sum(chunk.incomplete for chunk in chunks),
    )


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
