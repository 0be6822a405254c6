"""Titles: external item id -> (title, genres), from tables and the files of known data sets."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path

from bert4rec_jax.data import jsonlines
from bert4rec_jax.data.delimited import Form, open_bytes, quoting, rows_of, shorten, suffix_of
from bert4rec_jax.data.literals import literal
from bert4rec_jax.data.records import Record, column_names, read_records
from bert4rec_jax.errors import UserError

Titles = dict[str, tuple[str, str]]

_NO_GENRES = "(no genres listed)"  # MovieLens writes this for movies without genres
_ID_COLUMNS = ("item_id", "movieId", "id")
_TYPED = (".parquet", *jsonlines.SUFFIXES)  # endings of tables whose values have types
_ML_100K_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
_ML_100K_FIELDS = 5 + len(_ML_100K_GENRES)  # id, title, two dates, IMDb address, a flag per genre


def read_titles(path: Path, id_column: str | None = None) -> Titles:
    """Titles and genres (separated by `|`) by external item id; no title is the id itself.

    Reads `id::title::genres` (movies.dat), ml-100k's `u.item`, and tables with the columns
    `item_id`, `movieId` or `id`, `title` and optionally `genres`: CSV, or by their names TSV,
    Parquet and JSON. Text that is not UTF-8 is read as latin-1, the encoding of ml-100k and ml-1m;
    JSON has to be UTF-8.

    Args:
      path: the file.
      id_column: another name of the column of ids, which goes before the known ones: what the log
        calls it.

    Raises:
      UserError: the file is missing, empty, cut off, or in no known form, or a value is invalid.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the one file in which the titles are")
    names = _ID_COLUMNS if id_column is None else (id_column, *_ID_COLUMNS)
    id_columns = tuple(dict.fromkeys(names))
    read = _of_typed_table if suffix_of(path) in _TYPED else _of_text
    rows = read(path, id_columns)
    return {
        item_id: (title if title.strip() else item_id, genres) for item_id, title, genres in rows
    }


def _of_text(path: Path, id_columns: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    with open_bytes(path) as stream:
        content = stream.read()
    if content.startswith(b"PAR1"):
        raise UserError(f"{path} is a Parquet file; give it a name that ends in .parquet")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    # Not splitlines(): it also splits at characters that occur inside titles, such as U+0085.
    lines = [line.rstrip("\r") for line in text.split("\n")]
    first = next(filter(None, lines), None)
    if first is None:
        raise UserError(f"{path} is empty")
    if first.startswith("{"):
        raise UserError(f"{path} holds JSON objects; give it a name that ends in .jsonl")
    if "::" in first:
        return _of_dat(path, lines)
    if first.count("|") == _ML_100K_FIELDS - 1:
        return _of_item_file(path, lines)
    return _of_table(path, text, id_columns)


def _of_dat(path: Path, lines: list[str]) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        item_id, _, rest = line.partition("::")
        title, separator, genres = rest.rpartition("::")
        if not separator:
            raise _bad_line(path, number, line, "id::title::genres")
        yield item_id, title, genres


def _of_item_file(path: Path, lines: list[str]) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        fields = line.split("|")
        flags = fields[-len(_ML_100K_GENRES) :]
        if len(fields) != _ML_100K_FIELDS or not set(flags) <= {"0", "1"}:
            expected = f"id|title|date|date|address and {len(_ML_100K_GENRES)} flags of 0 or 1"
            raise _bad_line(path, number, line, expected)
        genres = "|".join(name for name, flag in zip(_ML_100K_GENRES, flags) if flag == "1")
        yield fields[0], fields[1], genres


def _of_table(path: Path, text: str, id_columns: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    form = Form("\t" if suffix_of(path) == ".tsv" else ",")
    quotes = quoting(filter(None, text.split("\n")), form)
    rows = _whole(path, rows_of(path, StringIO(text, newline=""), form, quotes))
    _, names = next(rows)
    id_column = _id_column(path, names, id_columns)
    for line, row in rows:
        if len(row) != len(names):
            raise _bad_line(path, line, ",".join(row), ",".join(names))
        values = dict(zip(names, row))
        yield values[id_column], values["title"], _names(values.get("genres", ""))


def _id_column(path: Path, names: Collection[str], id_columns: Sequence[str]) -> str:
    """The column of ids in a table of titles: the first of `id_columns` that it has."""
    id_column = next((name for name in id_columns if name in names), None)
    if id_column is None or "title" not in names:
        raise UserError(
            f"{path} has the columns {', '.join(map(repr, names))}; titles need the columns "
            f"{' or '.join(map(repr, id_columns))} and 'title', or lines as in movies.dat, u.item"
        )
    for name in (id_column, "title", "genres"):
        if list(names).count(name) > 1:
            raise UserError(
                f"{path} has several columns called {name!r}; expected one: rename the others"
            )
    return id_column


def _of_typed_table(path: Path, id_columns: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """The rows of a Parquet or JSON table."""
    names = column_names(path)
    if names is None:  # JSON: an object may lack a field that others have
        rows = read_records(path, what="title")
        names = list(dict.fromkeys(name for row in rows for name in row.values))
    id_column = _id_column(path, names, id_columns)
    for row in read_records(path, (id_column, "title", "genres"), what="title"):
        yield _id_of(row, id_column), _title_of(row), _genres_of(row)


def _id_of(row: Record, column: str) -> str:
    """An id as logs have it: whole numbers are their digits, and text is as it stands."""
    value = row.values.get(column)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise _invalid(row, column, "an id, which is text or a whole number")
    return str(value)


def _title_of(row: Record) -> str:
    """The title; empty if there is none."""
    value = row.values.get("title")
    if not isinstance(value, str | None):
        raise _invalid(row, "title", "text")
    return value or ""


def _genres_of(row: Record) -> str:
    """Genres separated by `|`, from such text or from a list."""
    value = row.values.get("genres")
    if value is None or isinstance(value, str):
        return _names(value or "")
    names = _listed(value)
    if names is None:
        raise _invalid(row, "genres", "names separated by |, or a list of names")
    return names


def _invalid(row: Record, field: str, expected: str) -> UserError:
    value = row.values.get(field)
    came = "is empty" if value in (None, "") else f"{shorten(value)} is not valid"
    return UserError(f"{row.where}: the {field} {came}; expected {expected}: fix or remove the row")


def _whole(path: Path, rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    try:
        yield from rows
    except csv.Error as error:
        raise UserError(
            f"{path}: cannot cut the text into fields ({error}); look for a quote that is never "
            "closed"
        ) from None


def _names(text: str) -> str:
    """Genres separated by `|`, from such text or a list in JSON or Python, as in CSV of TMDB."""
    if text == _NO_GENRES:
        return ""
    if not text.startswith("["):
        return text
    for parse in (json.loads, literal):
        with suppress(ValueError, RecursionError):
            if (names := _listed(parse(text))) is not None:
                return names
    return text


def _listed(value: object) -> str | None:
    """Names separated by `|` of a list of names, or of objects with names; None if it is none."""
    if not isinstance(value, list):
        return None
    given = [entry for entry in value if entry is not None]
    names = [entry.get("name") if isinstance(entry, dict) else entry for entry in given]
    texts = [name for name in names if isinstance(name, str)]
    return "|".join(x for x in texts if x != _NO_GENRES) if len(texts) == len(names) else None


def _bad_line(path: Path, number: int, line: str, expected: str) -> UserError:
    return UserError(
        f"{path}, line {number}: {shorten(line)} is no title; expected {expected}: fix the line, "
        "or get a whole copy of the file"
    )
