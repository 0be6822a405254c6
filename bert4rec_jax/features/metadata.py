"""Metadata: a table of movies, joined to the items of a catalog."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.data.records import column_names, read_records
from bert4rec_jax.errors import Notify, UserError
from bert4rec_jax.features.match import (
    ID_COLUMNS,
    Candidate,
    Match,
    best,
    candidate,
    id_columns,
    plain,
    preferred,
)
from bert4rec_jax.features.movie import Movie, movies_of
from bert4rec_jax.features.options import NO_OTHERS, OtherColumns
from bert4rec_jax.features.tmdb import COLUMNS, id_of, movie_of

_ENOUGH_YEARS = 10  # fewer cannot show whether ids match by accident
_ACCIDENT = 0.5
_SHOWN = 8


@dataclass(frozen=True)
class Metadata:
    """What a table says about the items of a catalog.

    Attributes:
      movies: one per item, in the catalog's order; `Movie()` for items that the table does not
        have.
      id_column: the column that matched.
      matched: `[len(catalog)]`: mask of the items that the table has.
      unread: columns of the table that are neither ids, nor of movies, nor were named to be read.
    """

    movies: list[Movie]
    id_column: str
    matched: npt.NDArray[np.bool_]
    unread: tuple[str, ...] = ()

    def unread_sentence(self) -> str | None:
        """Which columns say nothing to a model, and how to use them; None if there are none."""
        if not self.unread:
            return None
        more = len(self.unread) - _SHOWN
        shown = ", ".join(self.unread[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
        return f"not used: {shown} (see --name-columns, --number-columns, --text-columns)"


def read_metadata(
    path: Path,
    catalog: Catalog,
    *,
    id_column: str | None = None,
    usual_column: str | None = None,
    id_map: Mapping[str, str] | None = None,
    separator: str = "|",
    others: OtherColumns = NO_OTHERS,
    notify: Notify = lambda sentence: None,
) -> Metadata:
    """Read a table of movies and keep the rows of a catalog's items; the rows may be in any order.

    The file is read twice, for ids and for rows, so besides ids only the matching rows are in
    memory.

    Args:
      path: see `records.read_records` and `tmdb.movie_of`.
      catalog: the items.
      id_column: column of ids. None: `usual_column` if that is none of `ID_COLUMNS` and the table
        has it, or else the one of `ID_COLUMNS` that matches the most items.
      usual_column: the column of ids of an earlier table, if there was one.
      id_map: catalog id -> id in the table, if they differ.
      separator: between the names of a list in one text.
      others: columns to read besides the movie columns.
      notify: called with a sentence on how ids were matched.

    Raises:
      UserError: the file cannot be read, has no column of ids or no other known column, matches no
        item, has two rows for one item or an invalid value, or matches by accident.
    """
    tried = id_columns(usual_column) if id_column is None else (id_column,)
    chosen, rest, columns = _choose(path, catalog, tried, id_map, others)
    match = chosen.match
    movies = [Movie()] * len(catalog)
    matched = np.zeros(len(catalog), bool)
    seen: dict[str, str] = {}
    for where, values in read_records(path, {match.column, "external_ids", *COLUMNS, *others}):
        value = id_of(values, match.column)
        positions = match.of(value)
        if not positions:
            continue
        key = match.key(value) or ""
        if key in seen:
            raise UserError(
                f"{where}: the {match.column} {value!r} stands for the item "
                f"{catalog.item_ids[positions[0]]!r}, and so did {seen[key]}; expected one row per "
                "item: remove one of them"
            )
        seen[key] = where
        movie = movie_of(
            values,
            where,
            separator=separator,
            names=others.names,
            numbers=others.numbers,
            texts=others.texts,
        )
        for position in positions:
            movies[position] = movie
            matched[position] = True
    _refuse_accident(path, catalog, match, movies)
    notify(_sentence(path, catalog, chosen, rest, movies))
    read = {match.column, "external_ids", *ID_COLUMNS, *COLUMNS, *others}
    unread = tuple(column for column in columns if column not in read)
    return Metadata(movies, match.column, matched, unread)


def _choose(
    path: Path,
    catalog: Catalog,
    tried: tuple[str, ...],
    id_map: Mapping[str, str] | None,
    others: OtherColumns,
) -> tuple[Candidate, list[Candidate], list[str]]:
    """The best of the columns of ids to try, the other candidates, and all columns of the table."""
    values: dict[str, set[str]] = {column: set() for column in tried}
    columns = dict.fromkeys(column_names(path) or ())
    if not columns or columns.keys() & {*tried, "external_ids"}:
        for _, record in read_records(path, {*tried, "external_ids"}):
            columns.update(dict.fromkeys(record))
            for column in tried:
                value = plain(id_of(record, column))
                if value is not None:
                    values[column].add(value)
    found = preferred([column for column in tried if values[column] or column in columns])
    shown = ", ".join(map(repr, columns))
    if not found:
        wanted = f"none of {', '.join(tried)}" if len(tried) > 1 else f"no column {tried[0]!r}"
        raise UserError(
            f"{path} has {wanted}; its columns are {shown}: give the name of the column of ids "
            "with --id-column"
        )
    require_columns(path, others, columns)
    if not columns.keys() & {*COLUMNS, *others}:
        raise UserError(
            f"{path} has no column that says something about a movie; its columns are {shown}, "
            f"expected some of {', '.join(COLUMNS)}: rename them as TMDB does, or name those of "
            "other items with --name-columns and --number-columns"
        )
    candidates = [candidate(column, values[column], catalog, id_map) for column in found]
    chosen = best(path, candidates, catalog)
    return chosen, [other for other in candidates if other is not chosen], list(columns)


def require_columns(path: Path, others: OtherColumns, columns: Iterable[str]) -> None:
    """Check that a table has the columns that are to be read besides the movie columns.

    Raises:
      UserError: a column is missing; names the first one.
    """
    present = list(columns)
    for name in others:
        if name not in present:
            raise UserError(
                f"{path} has no column {name!r}; its columns are {', '.join(map(repr, present))}: "
                "name one of them, or add it (values may be missing)"
            )


def _refuse_accident(path: Path, catalog: Catalog, match: Match, movies: list[Movie]) -> None:
    """Raise an error if the ids match but the release years show that the movies do not."""
    own = movies_of(catalog)
    years = [
        (position, mine.year, movie.year)
        for position, (mine, movie) in enumerate(zip(own, movies))
        if mine.year and movie.year
    ]
    apart = [(at, mine, other) for at, mine, other in years if abs(mine - other) > 1]
    if len(years) >= _ENOUGH_YEARS and len(apart) > _ACCIDENT * len(years):
        at = apart[0][0]
        raise UserError(
            f"{path}: ids match by {match.column}, but the years of {len(apart):,} of "
            f"{len(years):,} movies do not (the catalog's {catalog.titles[at]!r} would be "
            f"{movies[at].title!r}, {movies[at].year}); these ids are of another kind: name the "
            "right column with --id-column, or give a table from the catalog's ids to these with "
            "--id-map"
        )


def _sentence(
    path: Path, catalog: Catalog, chosen: Candidate, others: list[Candidate], movies: list[Movie]
) -> str:
    """How ids were matched, with an example by which the user can spot an accidental match."""
    at = next((i for i, movie in enumerate(movies) if movie.title), None)
    example = "" if at is None else f"; for example, {catalog.titles[at]!r} is {movies[at].title!r}"
    if catalog.titles == catalog.item_ids:
        example += " (the store has no titles to check this by)"
    also = ", ".join(f"{other.match.column} {other.matched:,}" for other in others)
    return (
        f"{path.name} matches {chosen.matched:,} of {len(catalog):,} items by "
        f"{chosen.match.column}{f' ({also})' if also else ''}{example}"
    )
