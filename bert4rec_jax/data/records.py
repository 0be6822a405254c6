"""Records: the rows of a table in any of several file formats, as dicts with their place."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from bert4rec_jax.data import delimited, jsonlines, parquet
from bert4rec_jax.data.columns import refuse_semicolons
from bert4rec_jax.data.delimited import Form, is_utf8, open_bytes, shorten, suffix_of
from bert4rec_jax.errors import UserError

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_JSON_FORMS = "one JSON object per line, or one array of objects"


class Record(NamedTuple):
    """A row with the values in its file, and its place ("movies.csv, line 7") for messages."""

    where: str
    values: dict[str, Any]


def read_records(
    path: Path, wanted: Collection[str] | None = None, *, what: str = "item"
) -> Iterator[Record]:
    """Rows of a Parquet, CSV, TSV or JSON file, one by one.

    The suffix tells the format; text files may be compressed, with `.gz`, `.bz2` or `.xz` behind
    it. A `.json` file holds one object per line or one array of objects.

    Args:
      path: the file.
      wanted: the needed columns; from Parquet no others are read, from other formats all.
      what: what a row is about, for messages.

    Raises:
      UserError: the file is missing, of no known format, empty or broken; names the line if it can.
    """
    suffix = suffix_of(path)
    if suffix == ".parquet":
        rows = _of_parquet(path, wanted)
    elif suffix in _SEPARATORS:
        rows = _of_text(path, Form(_SEPARATORS[suffix]))
    elif suffix in jsonlines.SUFFIXES:
        rows = _of_json(path)
    elif not path.exists():
        raise UserError(f"{path} does not exist")
    else:
        known = ", ".join((".parquet", *_SEPARATORS, *jsonlines.SUFFIXES))
        raise UserError(f"{path} is of no known format; expected a file that ends in {known}")
    count = -1
    for count, record in enumerate(rows):  # noqa: B007 - the count is read after the loop
        yield record
    if count < 0:
        raise UserError(f"{path} is empty: it holds no {what}")


def has_types(path: Path) -> bool:
    """Whether the format of a table has typed values; in CSV and TSV all values are text."""
    return suffix_of(path) not in _SEPARATORS


def column_names(path: Path) -> list[str] | None:
    """The columns of a table whose format lists them apart from the rows (Parquet), else None.

    Raises:
      UserError: the file is missing, unreadable, or not a complete Parquet file.
    """
    return parquet.column_names(path) if path.suffix.lower() == ".parquet" else None


def _of_parquet(path: Path, wanted: Collection[str] | None) -> Iterator[Record]:
    names = parquet.column_names(path)
    read = [name for name in names if wanted is None or name in wanted]
    row = 0
    for batch in parquet.stream(path, {name: name for name in read}):
        columns = [_values(path, name, column) for name, column in batch.items()]
        for values in zip(*columns):
            row += 1
            yield Record(f"{path}, row {row}", dict(zip(read, values)))


def _values(path: Path, name: str, column: pa.Array) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):  # Python has no nanoseconds, and no year 10000
        raise UserError(
            f"{path}: column {name!r} of type {column.type} holds values that are finer or larger "
            "than those of Python; convert or remove the column"
        ) from None
    return values


def _of_text(path: Path, form: Form) -> Iterator[Record]:
    lines = delimited.records(path, form)
    line = 0
    try:
        line, names = next(lines, (0, []))
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(
                f"{path}, line {line}: two columns are called {twice!r}; expected one of each "
                "name: rename one of them"
            )
        refuse_semicolons(path, names)
        for line, fields in lines:
            if len(fields) != len(names):
                raise UserError(
                    f"{path}, line {line}: {shorten(form.separator.join(fields))} has "
                    f"{len(fields)} fields, expected {len(names)} as in the first line; fix the "
                    "line, or quote fields that hold the separator"
                )
            where = f"{path}, line {line}"
            _refuse_bytes(where, form.separator.join(fields))
            yield Record(where, dict(zip(names, fields)))
    except csv.Error as error:
        raise UserError(
            f"{path}: cannot cut the text after line {line} into fields ({error}); look for a "
            "quote that is never closed, or convert the table to Parquet"
        ) from None


def _of_json(path: Path) -> Iterator[Record]:
    with open_bytes(path) as binary:
        text = TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape")
        first = next((line for line in text if line.strip()), "")
        text.seek(0)
        if first.lstrip().startswith("["):
            yield from _of_array(path, text.read())
            return
        for number, line in enumerate(text, start=1):
            if line.strip():
                where = f"{path}, line {number}"
                _refuse_bytes(where, line)
                try:
                    values = json.loads(line)
                except ValueError as error:
                    raise _broken(where, line, str(error)) from None
                yield Record(where, _object(where, values))


def _of_array(path: Path, text: str) -> Iterator[Record]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        line = text.split("\n")[error.lineno - 1]
        raise _broken(f"{path}, line {error.lineno}", line, error.msg) from None
    for number, line in enumerate(text.split("\n"), start=1):
        _refuse_bytes(f"{path}, line {number}", line)
    for number, entry in enumerate(values, start=1):
        where = f"{path}, entry {number}"
        yield Record(where, _object(where, entry))


def _refuse_bytes(where: str, text: str) -> None:
    """Raise an error for bytes that are not UTF-8, which were decoded to lone surrogates."""
    if not is_utf8(text):
        raise UserError(
            f"{where}: {shorten(text.encode(errors='surrogateescape'))} is not UTF-8 text; convert "
            "the file to UTF-8"
        )


def _object(where: str, values: object) -> dict[str, Any]:
    if isinstance(values, dict):
        return values
    raise UserError(
        f"{where}: {shorten(values)} is no JSON object; expected {_JSON_FORMS}: fix or remove it"
    )


def _broken(where: str, line: str, reason: str) -> UserError:
    return UserError(
        f"{where}: {shorten(line.strip())} is broken JSON ({reason}); expected {_JSON_FORMS}: fix "
        "it, or get a whole copy of the file"
    )
