"""Readers: a log in any known format -> interactions and titles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bert4rec_jax.data import delimited, fields, parquet
from bert4rec_jax.data.columns import MOVIELENS, Columns
from bert4rec_jax.data.format_names import Format
from bert4rec_jax.data.formats import FORMS, LogFiles, locate
from bert4rec_jax.data.interactions import Interactions
from bert4rec_jax.data.store import sha256
from bert4rec_jax.data.titles import Titles, read_titles
from bert4rec_jax.errors import UserError

_TABLES = ("csv", "tsv", "parquet")


@dataclass(frozen=True)
class RawLog:
    """A log as it was read: no row is dropped and none is moved.

    Attributes:
      interactions: at least one row, in input order; `timed` is False and the timestamps are row
        numbers where the log has no times.
      titles: item id -> (title, genres separated by `|`), of any items.
      format: how the log was read.
      checksums: (name, SHA-256) of the files that were read.
    """

    interactions: Interactions
    titles: Titles
    format: Format
    checksums: tuple[tuple[str, str], ...]


def read_log(
    path: Path,
    *,
    format: Format | None = None,
    columns: Columns | None = None,
    titles: Path | None = None,
) -> RawLog:
    """Read a log file or folder.

    Args:
      path: see `formats.locate`.
      format: how to read it; None tells it by name and content.
      columns: of `csv`, `tsv` and `parquet` tables; None takes the default names.
      titles: see `titles.read_titles`; None takes the titles file beside the log, if any.

    Raises:
      UserError: a file, line or value that cannot be accepted. The message names it.
    """
    found = locate(path, format)
    titles = titles or found.titles
    if columns is not None and found.format not in _TABLES:
        raise UserError(
            f"{path} is read as {found.format}, whose columns are known; leave out the column "
            f"names, or name one of the formats {', '.join(_TABLES)}"
        )
    files = (*found.parts, titles) if titles else found.parts
    return RawLog(
        _interactions(found, columns or Columns()),
        read_titles(titles) if titles else {},
        found.format,
        tuple((file.name, sha256(file)) for file in files),
    )


@dataclass(frozen=True)
class _Chunk:
    """Some rows of a log; every chunk has ids of its own."""

    users: pa.DictionaryArray
    items: pa.DictionaryArray
    timestamps: npt.NDArray[np.int64] | None
    ratings: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class _Part:
    """One file of a log, with the columns to read by role: user, item, timestamp, rating."""

    path: Path
    format: Format
    names: dict[str, str]

    def chunks(self) -> Iterator[_Chunk]:
        """The file, checked, a piece at a time."""
        first = 0
        for batch in self._batches():
            count = len(batch["user"])
            if not count:
                continue
            where = partial(self._place, first)
            yield _Chunk(
                fields.ids(batch["user"], "user", where),
                fields.ids(batch["item"], "item", where),
                fields.timestamps(batch["timestamp"], where) if "timestamp" in batch else None,
                fields.ratings(batch["rating"], where, may_be_empty=self.format in _TABLES)
                if "rating" in batch
                else None,
            )
            first += count

    def _batches(self) -> Iterator[dict[str, pa.Array]]:
        if self.format == "parquet":
            return parquet.stream(self.path, self.names)
        return delimited.stream(self.path, FORMS[self.format], self.names)

    def _place(self, first: int, row: int) -> str:
        """Where row `first + row` of the file stands, as messages say it."""
        if self.format == "parquet":
            return f"{self.path}, row {first + row + 1}"
        return f"{self.path}, line {delimited.line_of(self.path, FORMS[self.format], first + row)}"


def _interactions(log: LogFiles, columns: Columns) -> Interactions:
    parts = [_Part(path, log.format, _names(path, log.format, columns)) for path in log.parts]
    for part in parts[1:]:
        if part.names != parts[0].names:
            raise UserError(
                f"{part.path} has other columns than {parts[0].path} "
                f"({sorted(part.names.values())} and {sorted(parts[0].names.values())}); give all "
                "parts the same columns"
            )
    chunks = [chunk for part in parts for chunk in part.chunks()]
    if not chunks:
        raise UserError(f"{log.parts[0]} is empty: it holds no interaction")
    users, user_ids = _unified([chunk.users for chunk in chunks])
    items, item_ids = _unified([chunk.items for chunk in chunks])
    times = [chunk.timestamps for chunk in chunks if chunk.timestamps is not None]
    ratings = [chunk.ratings for chunk in chunks if chunk.ratings is not None]
    return Interactions(
        users=users,
        items=items,
        timestamps=np.concatenate(times) if times else np.arange(len(users)),
        ratings=np.concatenate(ratings) if ratings else np.full(len(users), np.nan, np.float32),
        user_ids=user_ids,
        item_ids=item_ids,
        timed=bool(times),
    )


def _names(path: Path, format: Format, columns: Columns) -> dict[str, str]:
    """Role -> name of the column that plays it in one file."""
    if format == "parquet":
        return columns.find(path, parquet.column_names(path), lenient=True)
    form = FORMS[format]
    if not form.headed:
        return {name: name for name in form.names}
    present = delimited.header(path, form)
    if format == "movielens-csv":
        return MOVIELENS.find(path, present, lenient=False)
    return columns.find(path, present, lenient=True)


def _unified(chunks: list[pa.DictionaryArray]) -> tuple[npt.NDArray[np.int32], pa.StringArray]:
    """Codes into one table of ids, in order of first appearance."""
    unified = pa.chunked_array(chunks).unify_dictionaries().chunks
    return np.concatenate([chunk.indices.to_numpy() for chunk in unified]), unified[0].dictionary
