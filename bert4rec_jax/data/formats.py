"""Formats: detect the format of a log, by file name first and then by the first line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bert4rec_jax.data import jsonlines
from bert4rec_jax.data.delimited import (
    UNPACKED,
    Form,
    first_line,
    open_bytes,
    require_regular,
    shorten,
    suffix_of,
)
from bert4rec_jax.data.options import FORMATS, Format, option
from bert4rec_jax.errors import UserError

_ROLES = ("user", "item", "rating", "timestamp")
FORMS: dict[Format, Form] = {
    "movielens-dat": Form("::", _ROLES),
    "movielens-100k": Form("\t", _ROLES),
    "movielens-csv": Form(","),
    "pairs": Form("", ("user", "item")),
    "csv": Form(","),
    "tsv": Form("\t"),
}

_IN_A_FOLDER: dict[str, tuple[Format, ...]] = {
    "ratings.dat": ("movielens-dat",),
    "u.data": ("movielens-100k",),
    "ratings.csv": ("movielens-csv", "csv"),
}
_TITLE_NAMES: dict[Format, tuple[str, ...]] = {
    "movielens-dat": ("movies.dat",),
    "movielens-100k": ("u.item",),
    "movielens-csv": ("movies.csv",),
}
_MOVIELENS_HEADER = ["userId", "movieId", "rating", "timestamp"]
_PACKED = (".zst", ".zip", ".7z", ".tar", ".tgz")
_ENDINGS = ("", *UNPACKED)


@dataclass(frozen=True)
class LogFiles:
    """The files of a log, and their format.

    Attributes:
      format: how the files are read.
      parts: the files with interactions, in reading order; several only for Parquet.
      titles: the file with titles and genres beside them, if there is one.
    """

    format: Format
    parts: tuple[Path, ...]
    titles: Path | None


def locate(path: Path, format: Format | None = None) -> LogFiles:
    """Find the files of a log, and detect their format unless it is given.

    In a folder, the log is `ratings.dat`, `u.data` or `ratings.csv`, or else all `*.parquet` files
    in the order of their names, except those whose name begins with `_` or a dot. Partitions, which
    are subfolders named `KEY=VALUE`, are read in the same way. All formats but Parquet may be
    compressed, with `.gz`, `.bz2` or `.xz` at the end of the name.

    A file may have any name: `::` between the fields means `movielens-dat`, four columns of numbers
    between tabs `movielens-100k`, the header `userId,movieId,rating,timestamp` `movielens-csv`, two
    words on a line `pairs`, and a JSON object on each line `jsonl`. Other tables are recognised by
    `.csv`, `.tsv` and `.parquet`.

    Raises:
      UserError: there is nothing to read, there are several logs, or the format cannot be told.
    """
    if format is not None and format not in FORMATS:
        raise UserError(f"the format is {format!r}; expected one of {', '.join(FORMATS)}")
    if not path.exists():
        raise UserError(f"{path} does not exist; give a log file, a folder or a data set's name")
    parts = _parts(path, format) if path.is_dir() else (path,)
    for part in parts:
        require_regular(part)
        if {part.suffix, suffix_of(part)} & set(_PACKED):
            raise UserError(f"{part} is packed; unpack it and give the file or folder inside")
        if not part.stat().st_size:
            raise UserError(f"{part} is empty")
    found = format or _format_of(parts[0])
    beside = (
        parts[0].with_name(name + ending)
        for name in _TITLE_NAMES.get(found, ())
        for ending in _ENDINGS
    )
    return LogFiles(found, parts, next((file for file in beside if file.is_file()), None))


def _parts(folder: Path, format: Format | None) -> tuple[Path, ...]:
    """The log files in a folder."""
    logs = [
        folder / (name + ending)
        for name, formats in _IN_A_FOLDER.items()
        for ending in _ENDINGS
        if format in (None, *formats) and (folder / (name + ending)).is_file()
    ]
    tables = _shards(folder) if format in (None, "parquet") else ()
    if len(logs) == 1:
        return (logs[0],)
    if len(logs) > 1:
        names = " and ".join(log.name for log in logs)
        raise UserError(f"{folder} holds {names}; give the path of the file to read")
    if not tables:
        found = ", ".join(sorted(file.name for file in folder.iterdir())[:10]) or "nothing"
        raise UserError(
            f"{folder} holds none of {', '.join(_IN_A_FOLDER)} and *.parquet, but {found}; give "
            f"the path of the log file{_on_subfolders(folder)}"
        )
    return tables


def _shards(folder: Path) -> tuple[Path, ...]:
    """The Parquet files of a folder and its partitions, in the order of names.

    Spark and Hadoop mark what holds no rows with `_` and `.`.
    """
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".")):
            continue
        if path.is_dir():
            found += _shards(path) if "=" in path.name else ()
        elif path.suffix == ".parquet" and path.is_file():
            found.append(path)
    return tuple(found)


def _on_subfolders(folder: Path) -> str:
    if any(path.is_dir() for path in folder.iterdir()):
        return ", or of one subfolder: none is read but partitions of Parquet (KEY=VALUE)"
    return ""


def _format_of(file: Path) -> Format:
    packed = file.suffix.lower() in UNPACKED
    named = _IN_A_FOLDER.get(file.stem if packed else file.name, ())
    suffix = suffix_of(file)
    if len(named) == 1:
        return named[0]
    with open_bytes(file) as stream:
        start = stream.read(4)
    if suffix == ".parquet" or start == b"PAR1":
        return "parquet"
    line = first_line(file)
    fields = line.split("\t")
    if "::" in line:
        return "movielens-dat"
    if line.split(",") == _MOVIELENS_HEADER:
        return "movielens-csv"
    if suffix == ".csv":
        return "csv"
    if suffix in (".tsv", ".inter"):  # `.inter` is RecBole's; see Columns.find
        return "tsv"
    if suffix in jsonlines.SUFFIXES or line.startswith("{"):
        return "jsonl"
    if len(fields) == len(_ROLES) and all(field.isdecimal() for field in fields):
        return "movielens-100k"
    if len(line.split()) == 2:
        return "pairs"
    raise UserError(
        f"cannot tell the format of {file} from its first line {shorten(line)}; give one with "
        f"{option('--format', 'format')}: {', '.join(FORMATS)}"
    )
