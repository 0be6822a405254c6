"""Titles: external item id -> (title, genres), from the movie files of the known data sets."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from bert4rec_jax.data.delimited import Form, open_bytes, quoting, shorten, suffix_of
from bert4rec_jax.errors import UserError

Titles = dict[str, tuple[str, str]]

_NO_GENRES = "(no genres listed)"  # MovieLens writes this for movies without genres
_ID_COLUMNS = ("item_id", "movieId", "id")
_ML_100K_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
_ML_100K_FIELDS = 5 + len(_ML_100K_GENRES)  # id, title, two dates, IMDb address, a flag per genre


def read_titles(path: Path) -> Titles:
    """Titles and genres (separated by `|`) by external item id.

    Reads `id::title::genres` (movies.dat), ml-100k's `u.item`, and CSV (or TSV, by its name) with
    the columns `item_id`, `movieId` or `id`, `title` and optionally `genres`. Files that are not
    UTF-8 are read as latin-1, the encoding of ml-100k and ml-1m.

    Raises:
      UserError: the file is missing, empty, cut off, or in no known form.
    """
    with open_bytes(path) as stream:
        content = stream.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    # Not splitlines(): it also splits at characters that occur inside titles, such as U+0085.
    lines = [line.rstrip("\r") for line in text.split("\n")]
    first = next(filter(None, lines), None)
    if first is None:
        raise UserError(f"{path} is empty")
    if "::" in first:
        rows = _of_dat(path, lines)
    elif first.count("|") == _ML_100K_FIELDS - 1:
        rows = _of_item_file(path, lines)
    else:
        rows = _of_table(path, text)
    return {item_id: (title, genres) for item_id, title, genres in rows}


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


def _of_table(path: Path, text: str) -> Iterator[tuple[str, str, str]]:
    form = Form("\t" if suffix_of(path) == ".tsv" else ",")
    quotes = quoting(filter(None, text.split("\n")), form)
    reader = csv.reader(StringIO(text, newline=""), delimiter=form.separator, quoting=quotes)
    rows = filter(None, reader)
    names = next(_whole(path, rows))
    id_column = next((name for name in _ID_COLUMNS if name in names), None)
    if id_column is None or "title" not in names:
        raise UserError(
            f"{path} has the columns {', '.join(map(repr, names))}; titles need the columns "
            f"{' or '.join(map(repr, _ID_COLUMNS))} and 'title', or lines as in movies.dat, u.item"
        )
    for row in _whole(path, rows):
        if len(row) != len(names):
            raise _bad_line(path, reader.line_num, ",".join(row), ",".join(names))
        values = dict(zip(names, row))
        genres = _names(values.get("genres", ""))
        yield values[id_column], values["title"], "" if genres == _NO_GENRES else genres


def _whole(path: Path, rows: Iterator[list[str]]) -> Iterator[list[str]]:
    try:
        yield from rows
    except csv.Error as error:
        raise UserError(
            f"{path}: cannot cut the text into fields ({error}); look for a quote that is never "
            "closed"
        ) from None


def _names(text: str) -> str:
    """Genres separated by `|`; converts JSON lists of objects with names, as in TMDB's CSV."""
    if not text.startswith("["):
        return text
    try:
        return "|".join(str(entry["name"]) for entry in json.loads(text))
    except (ValueError, TypeError, KeyError):
        return text


def _bad_line(path: Path, number: int, line: str, expected: str) -> UserError:
    return UserError(
        f"{path}, line {number}: {shorten(line)} is no title; expected {expected}: fix the line, "
        "or get a whole copy of the file"
    )
