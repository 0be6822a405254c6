"""Match: find which rows of a table are about which items of a catalog, by their ids."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.data.delimited import open_bytes, shorten
from bert4rec_jax.errors import UserError

ID_COLUMNS = ("item_id", "imdb_id", "tmdb_id", "id", "movielens_id", "movieId")
"""Columns that are tried as ids; ties go to the first."""

_CATALOG_IDS = "item_id"  # this column holds the catalog's own ids; an id map does not apply to it
_WHOLE = re.compile(r"(-?\d+)\.0+")
_TITLE = re.compile(r"tt\d+")
_IMDB = re.compile(r"(?:tt)?0*(\d+)")
_EXAMPLES = 3


def id_columns(usual: str | None) -> tuple[str, ...]:
    """Columns that are tried as ids: the one that held them before, if any, then `ID_COLUMNS`."""
    return ID_COLUMNS if usual is None else tuple(dict.fromkeys((usual, *ID_COLUMNS)))


def preferred(columns: list[str]) -> list[str]:
    """Those of a table's columns of ids to choose from.

    A column besides `ID_COLUMNS` was named by the user, so it alone counts.
    """
    return [column for column in columns if column not in ID_COLUMNS] or columns


def plain(value: object) -> str | None:
    """An id as text; None if it is missing.

    Whole numbers lose the `.0` that tables with missing values give them: 862.0 and "862.0" become
    "862".
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = str(value).strip()
    whole = _WHOLE.fullmatch(text)
    return (whole[1] if whole else text) or None


def imdb_number(item_id: str) -> str:
    """`tt0114709`, `0114709` and `114709` become the same id `114709`; other text stays."""
    found = _IMDB.fullmatch(item_id)
    return found[1] if found else item_id


def read_id_map(path: Path, catalog: Catalog) -> dict[str, str]:
    """Read a map from ids of a catalog to ids in the metadata.

    A line has two columns, the catalog's id and the metadata's, separated by a tab, a comma or
    other white space. Between tabs, ids may have spaces and commas in them; in CSV, spaces, and in
    quotes commas.

    Raises:
      UserError: a line does not have two fields, an id of the catalog is mapped to two ids, or no
        line has an id of the catalog.
    """
    found: dict[str, str] = {}
    with open_bytes(path) as stream:
        lines = stream.read().decode("utf-8-sig", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        fields = _fields(line)
        if not fields:
            continue
        if len(fields) != 2:
            raise UserError(
                f"{path}, line {number}: {shorten(line)} has {len(fields)} fields, expected an id "
                "of the catalog and one of the metadata: fix the line, or put a tab between the "
                "two if ids have spaces or commas"
            )
        own, other = fields
        if found.setdefault(own, other) != other:
            raise UserError(
                f"{path}, line {number}: the item {own!r} was {found[own]!r} before and is "
                f"{other!r} now; expected one id of the metadata each: remove one of the lines"
            )
    if not found.keys() & set(catalog.item_ids):
        turned = set(found.values()) & set(catalog.item_ids)
        way_out = (
            "its second column does, so swap the columns"
            if turned
            else "give the map that belongs to this data"
        )
        raise UserError(
            f"{path}: none of its {len(found):,} lines begins with an id of the catalog (such as "
            f"{_some(catalog.item_ids)}; the map has {_some(found)}); {way_out}"
        )
    return found


def _fields(line: str) -> list[str]:
    """The fields of a line at a tab or as CSV, where these are two, or else its words."""
    line = line.strip().replace("\r", " ")  # which csv refuses
    for separator in "\t,":
        fields = next(csv.reader([line], delimiter=separator), [])
        stripped = [field.strip() for field in fields]
        if len(stripped) == 2 and all(stripped):
            return stripped
    return line.replace(",", " ").split()


@dataclass(frozen=True)
class Match:
    """A column of ids, and the items that its values stand for.

    Attributes:
      column: name of the column.
      imdb: whether ids are compared as IMDb numbers.
      items: normalised id -> positions in the catalog.
    """

    column: str
    imdb: bool
    items: Mapping[str, Sequence[int]]

    def key(self, value: object) -> str | None:
        """A value of the column, normalised like the keys of `items`; None if it is missing."""
        return _normalise(plain(value), imdb=self.imdb)

    def of(self, value: object) -> Sequence[int]:
        """Positions in the catalog of the items that a value stands for; usually none or one."""
        key = self.key(value)
        return self.items.get(key, ()) if key is not None else ()


@dataclass(frozen=True)
class Candidate:
    """A column that may hold ids: which items its values would stand for, and the values it has."""

    match: Match
    keys: frozenset[str]

    @cached_property
    def matched(self) -> int:
        """Number of items of the catalog that are in the column."""
        return sum(len(rows) for key, rows in self.match.items.items() if key in self.keys)


def candidate(
    column: str, values: set[str], catalog: Catalog, id_map: Mapping[str, str] | None
) -> Candidate:
    """Make a candidate of a column.

    Args:
      column: its name.
      values: its values, as `plain` returns them.
      catalog: the items.
      id_map: catalog id -> id in the metadata; items that are not in it match nothing.
    """
    imdb = "imdb" in column.lower() or (
        any(map(_TITLE.fullmatch, values)) and not _zeros_count({*values, *catalog.item_ids})
    )
    items: dict[str, list[int]] = {}
    for position, item_id in enumerate(catalog.item_ids):
        mapped = item_id if id_map is None or column == _CATALOG_IDS else id_map.get(item_id)
        key = _normalise(plain(mapped), imdb=imdb)
        if key is not None:
            items.setdefault(key, []).append(position)
    keys = frozenset(key for v in values if (key := _normalise(v, imdb=imdb)) is not None)
    return Candidate(Match(column, imdb, items), keys)


_WAY_OUT = (
    "name the right column with --id-column, or give a table from the catalog's ids to these with "
    "--id-map"
)


def best(
    path: Path, candidates: Sequence[Candidate], catalog: Catalog, way_out: str = _WAY_OUT
) -> Candidate:
    """The candidate that matches the most items; ties go to the first.

    Raises:
      UserError: no candidate matches any item; it ends in `way_out`.
    """
    chosen = max(candidates, key=lambda c: c.matched)
    if chosen.matched:
        return chosen
    columns = "; ".join(
        f"{c.match.column} has {len(c.keys):,}" + (f" such as {_some(c.keys)}" if c.keys else "")
        for c in candidates
    )
    known = f"{len(catalog):,} items, such as {_some(catalog.item_ids)}"
    raise UserError(
        f"{path}: no id matches the catalog ({known}); {columns}. In a column of IMDb ids "
        f"tt0114709, 0114709 and 114709 are one id, so these ids are of another kind: {way_out}"
    )


def _zeros_count(ids: Collection[str]) -> bool:
    """Whether some ids differ in leading zeros alone, as `7` and `007`: they are not IMDb's."""
    digits = [item_id for item_id in ids if item_id.isdecimal()]
    return len({item_id.lstrip("0") for item_id in digits}) < len(digits)


def _normalise(value: str | None, *, imdb: bool) -> str | None:
    return imdb_number(value) if imdb and value is not None else value


def _some(ids: Sequence[str] | frozenset[str] | Mapping[str, str]) -> str:
    chosen = sorted(ids)[:_EXAMPLES] if isinstance(ids, frozenset) else islice(ids, _EXAMPLES)
    return ", ".join(map(repr, chosen))
