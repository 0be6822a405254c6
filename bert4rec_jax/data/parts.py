"""Parts: the files of a log, each read in chunks of validated columns."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert4rec_jax.data import delimited, fields, jsonlines, parquet
from bert4rec_jax.data.columns import MOVIELENS, Columns
from bert4rec_jax.data.formats import FORMS, LogFiles
from bert4rec_jax.data.grouped import exploded, is_list
from bert4rec_jax.data.options import Format, option
from bert4rec_jax.errors import UserError

TABLES: tuple[Format, ...] = ("csv", "tsv", "jsonl", "parquet")
_NEEDED = ("user", "item", "timestamp")  # of an interaction, if the log has the column
_ROLES = ("user", "item", "timestamp", "rating", "event")


@dataclass(frozen=True)
class Chunk:
    """Some rows of a log; every chunk has id tables of its own."""

    users: pa.DictionaryArray
    items: pa.DictionaryArray
    times: fields.Times | None
    ratings: npt.NDArray[np.float32] | None
    empty_histories: int
    events: dict[str, int]
    incomplete: int


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
      unused: the other columns of a table, which are not read.
    """

    path: Path
    format: Format
    names: dict[str, str]
    grouped: bool | None
    columns: Columns
    unused: tuple[str, ...] = ()

    def chunks(self, *, skip_incomplete: bool = False) -> Iterator[Chunk]:
        """Read the file in pieces, with all values validated.

        Args:
          skip_incomplete: whether interactions without a user, an item or, where there are times, a
            time are left out instead of refused; they are counted.
        """
        first = 0
        for batch in self._batches():
            count, empty = len(batch["user"]), 0
            if not count:
                continue
            where: fields.Where = functools.partial(self._place, first)
            if self.grouped:
                batch, where, empty = exploded(_as_lists(batch), where)
            events: dict[str, int] = {}
            if "event" in batch:
                batch, where, events = _of_events(batch, self.columns.events, where)
            incomplete = 0
            if skip_incomplete:
                batch, where, incomplete = _complete(batch, where)
            if not len(batch["user"]):  # nothing whose type could be wrong
                batch = dict.fromkeys(batch, pa.nulls(0))
            times = batch.get("timestamp")
            yield Chunk(
                fields.ids(batch["user"], "user", where),
                fields.ids(batch["item"], "item", where),
                None if times is None else fields.timestamps(times, where, self.columns.unit),
                fields.ratings(batch["rating"], where, may_be_empty=self.format in TABLES)
                if "rating" in batch
                else None,
                empty,
                events,
                incomplete,
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
                    f"are {known}: name some of these with "
                    + option("--events", "columns={'events': NAMES, ...}")
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


def parts_of(log: LogFiles, columns: Columns) -> tuple[Part, ...]:
    """The files of a log, with the columns to read from each.

    Raises:
      UserError: a file lacks a column, or differs from the others in its columns or its form.
    """
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
        grouped, unused = _is_grouped(path, schema, names), _others(schema.names, names)
        return Part(path, format, names, grouped, columns, unused)
    form = FORMS[format]
    if not form.headed:
        return Part(path, format, {name: name for name in form.names}, False, columns)
    present = delimited.header(path, form)
    if format == "movielens-csv":
        return Part(path, format, MOVIELENS.find(path, present, lenient=False), False, MOVIELENS)
    names = columns.find(path, present, lenient=True)
    return Part(path, format, names, False, columns, _others(present, names))


def _others(present: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name for name in present if name not in names.values())


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
    return *_filtered(batch, kept, where), counts


def _complete(
    batch: dict[str, pa.Array], where: fields.Where
) -> tuple[dict[str, pa.Array], fields.Where, int]:
    """The rows that lack none of user, item and time, a `where` for them, and how many others."""
    needed = [batch[role] for role in _NEEDED if role in batch]
    absent = functools.reduce(pc.or_, map(fields.missing, needed))
    return *_filtered(batch, pc.invert(absent), where), absent.true_count


def _filtered(
    batch: Mapping[str, pa.Array], kept: pa.BooleanArray, where: fields.Where
) -> tuple[dict[str, pa.Array], fields.Where]:
    """The rows of a mask, and a `where` for them."""
    rows = np.flatnonzero(kept.to_numpy(zero_copy_only=False))
    chosen = {role: column.filter(kept) for role, column in batch.items()}
    return chosen, lambda row: where(int(rows[row]))
