"""Releases: movies that a catalog does not have yet, with their ids in the catalog's form."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.data.records import column_names, read_records
from bert4rec_jax.errors import UserError
from bert4rec_jax.features.match import id_columns, imdb_number, plain, preferred
from bert4rec_jax.features.metadata import require_columns
from bert4rec_jax.features.movie import Movie, title_of
from bert4rec_jax.features.options import NO_OTHERS, OtherColumns
from bert4rec_jax.features.tmdb import COLUMNS, id_of, movie_of

_IMDB = re.compile(r"tt(\d+)")
_SHOWN = 3


def read_releases(
    path: Path,
    catalog: Catalog,
    *,
    id_column: str | None = None,
    usual_column: str | None = None,
    ids: Sequence[str] = (),
    skip_known: bool = False,
    separator: str = "|",
    others: OtherColumns = NO_OTHERS,
) -> tuple[str, Catalog]:
    """Read the movies of a table as a catalog of their own, to be appended to an existing one.

    If all ids of the catalog are digits, an id such as `tt0114709` becomes `0114709`.

    Args:
      path: a table of movies, see `records.read_records`.
      catalog: the existing catalog.
      id_column: the table's column of ids. None: `usual_column` if that is none of `ID_COLUMNS` and
        the table has it, or else the one of `ID_COLUMNS` with the most items of the catalog; ties
        go to `usual_column`, then to the first.
      usual_column: the column by which the catalog's items were matched to a table, if they were.
      ids: the only movies to take, in the table's form or the catalog's; empty for all.
      skip_known: leave out movies that the catalog has already, instead of raising an error; the
        result may then be empty.
      separator: between the names of a list in one text.
      others: columns to read besides the movie columns.

    Returns:
      The column of ids, and the movies in the order of the table.

    Raises:
      UserError: the table cannot be read or has no ids; one of `ids` is not in it; or an id occurs
        twice, is in the catalog already, or is not of the form of the catalog's.
    """
    column = id_column or _column(path, catalog, usual_column)
    digits = _digits(catalog)
    wanted = {_in_form(_plain(item_id), digits) for item_id in ids}
    same = _same_ids(column)
    own = {same(item_id) for item_id in catalog.item_ids} if skip_known else set()
    rows: dict[str, str] = {}
    found_ids: list[str] = []
    columns: dict[str, None] = {}
    movies: list[Movie] = []
    for where, values in read_records(path, {column, "external_ids", *COLUMNS, *others}):
        columns |= dict.fromkeys(values)
        found = plain(id_of(values, column))
        if found is None and wanted:
            continue  # none of those
        if found is None:
            raise UserError(f"{where}: the {column} is missing; expected an id: correct the row")
        item_id = _in_form(found, digits)
        if (wanted and item_id not in wanted) or same(item_id) in own:
            continue
        if same(item_id) in rows:
            raise UserError(
                f"{where}: the {column} {found!r} is in {rows[same(item_id)]} too; expected one "
                "row per item: remove one of them"
            )
        if digits and not item_id.isdigit():
            raise UserError(
                f"{where}: the {column} {found!r} is of another form than the ids of the catalog, "
                f"which are digits such as {catalog.item_ids[0]!r}; name the right column with "
                "--id-column"
            )
        rows[same(item_id)] = where
        found_ids.append(item_id)
        movies.append(
            movie_of(
                values,
                where,
                separator=separator,
                names=others.names,
                numbers=others.numbers,
                texts=others.texts,
            )
        )
    require_columns(path, others, columns)
    absent = wanted.difference(found_ids)
    missing = sorted(item_id for item_id in absent if same(item_id) not in own)
    if missing:
        raise UserError(f"{path} has no {column} {_some(missing)}; check the spelling")
    new = Catalog(
        tuple(found_ids),
        tuple(title_of(item_id, movie) for item_id, movie in zip(found_ids, movies)),
        tuple("|".join(movie.genres) for movie in movies),
    )
    _refuse_known(new.item_ids, catalog, same)
    return column, new


def named_releases(item_ids: Sequence[str], catalog: Catalog) -> Catalog:
    """Movies of which only the ids are known, as a catalog of their own.

    If all ids of the catalog are digits, an id such as `tt0114709` becomes `0114709`.

    Raises:
      UserError: an id occurs twice, or is in the catalog already.
    """
    ids = [_in_form(item_id, _digits(catalog)) for item_id in item_ids]
    repeated = [item_id for item_id, count in Counter(ids).items() if count > 1]
    if repeated:
        raise UserError(
            f"{_some(repeated)} is named {ids.count(repeated[0])} times in the ids to add; "
            "expected every item once"
        )
    _refuse_known(ids, catalog, _imdb_number)
    return Catalog(tuple(ids), tuple(ids), ("",) * len(ids))


def _same_ids(column: str) -> Callable[[str], str]:
    """What ids of a column are compared by: all forms of an IMDb id are one, others are text.

    As in `match`, whole numbers are the same with and without `.0`.
    """
    return _imdb_number if "imdb" in column.lower() else _plain


def _plain(item_id: str) -> str:
    return plain(item_id) or item_id


def _imdb_number(item_id: str) -> str:
    return imdb_number(_plain(item_id))


def _refuse_known(item_ids: Sequence[str], catalog: Catalog, same: Callable[[str], str]) -> None:
    """Raise an error that names ids which a catalog has already, compared by `same`."""
    own = {same(item_id): item_id for item_id in catalog.item_ids}
    known = [item_id for item_id in item_ids if same(item_id) in own]
    if known:
        raise UserError(
            f"{len(known):,} of {len(item_ids):,} items to add are in the catalog already "
            f"({_some(known)}); leave them out (--skip-known does, of a table)"
        )


def _column(path: Path, catalog: Catalog, usual: str | None) -> str:
    own = {_imdb_number(item_id) for item_id in catalog.item_ids}
    known: dict[str, int] = {}
    columns: dict[str, None] = {}
    tried = id_columns(usual)
    for _, values in read_records(path, {*tried, "external_ids"}):
        columns |= dict.fromkeys(values)
        for name in tried:
            item_id = plain(id_of(values, name))
            if item_id is not None:
                known[name] = known.get(name, 0) + (imdb_number(item_id) in own)
    found = preferred([name for name in tried if name in known or name in columns])
    if not found:
        shown = ", ".join(map(repr, column_names(path) or columns))
        raise UserError(
            f"{path} has none of {', '.join(tried)}; its columns are {shown}: give the name "
            "of the column of ids with --id-column"
        )
    return max(found, key=lambda name: known.get(name, 0))


def _digits(catalog: Catalog) -> bool:
    return all(item_id.isdigit() for item_id in catalog.item_ids)


def _in_form(item_id: str, digits: bool) -> str:
    found = _IMDB.fullmatch(item_id)
    return found[1] if digits and found else item_id


def _some(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:_SHOWN])) + (", ..." if len(ids) > _SHOWN else "")
