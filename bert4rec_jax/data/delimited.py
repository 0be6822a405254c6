"""Delimited text: log files split into columns, and line numbers for error messages.

pyarrow streams a file block by block, so memory does not grow with its length. Its error messages
name no line, so after an error the file is read again, line by line, to find the place.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import itertools
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from bert4rec_jax.errors import UserError

Quoting = Literal[0, 3]  # csv.QUOTE_MINIMAL and csv.QUOTE_NONE
_BLOCK_BYTES = 8 << 20
UNPACKED: dict[str, Callable[[BinaryIO], Any]] = {
    ".xz": lzma.open,
    ".gz": gzip.open,
    ".bz2": bz2.open,
}
"""Suffix -> how to open a compressed file, which is decompressed while it is read."""
_SAMPLE = 1000  # lines from which to tell whether quotes enclose fields
_NOT_A_DELIMITER = "\x01"  # as a delimiter, it keeps a line in one piece


@dataclass(frozen=True)
class Form:
    """How a line is split into fields.

    Attributes:
      separator: between two fields; the empty string stands for any white space.
      names: names of the fields. Empty: the first line holds the names, and fields may be quoted;
        see `quoting`.
    """

    separator: str
    names: tuple[str, ...] = ()

    @property
    def headed(self) -> bool:
        """Whether the first line names the columns."""
        return not self.names


LINES = Form(_NOT_A_DELIMITER, ("line",))
"""The form in which a whole line is one field."""


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressing it if its suffix is in `UNPACKED`.

    Raises:
      UserError: the file is missing, unreadable or damaged, also if that shows only while it is
        open; or it is text in UTF-16, as Excel's "Unicode text" is.
    """
    try:
        with path.open("rb") as stream:
            unpack = UNPACKED.get(path.suffix.lower())
            with nullcontext(stream) if unpack is None else unpack(stream) as unpacked:
                if unpacked.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                    raise UserError(f"{path} is UTF-16 text; convert the file to UTF-8")
                yield cast(BinaryIO, unpacked)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (EOFError, lzma.LZMAError, zlib.error):
        raise _damaged(path) from None
    except OSError as error:
        if error.errno is None:  # raised by gzip or bz2, not by the system
            raise _damaged(path) from None
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def require_regular(path: Path) -> None:
    """Refuse a pipe where a file is read more than once.

    Raises:
      UserError: it is one.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(
            f"{path} is no regular file, and a pipe can be read only once; write what comes from "
            "it to a file, and give that"
        )


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is cut off or damaged; get a whole copy of it")


def suffix_of(path: Path) -> str:
    """The suffix that tells a file's format, in lower case: `.csv` for `log.csv.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = len(suffixes) > 1 and suffixes[-1] in UNPACKED
    return suffixes[-2] if packed else path.suffix.lower()


def records(path: Path, form: Form) -> Iterator[tuple[int, list[str]]]:
    """Non-empty lines, split into fields, with their numbers from 1; a header is a line too.

    Bytes that are not UTF-8 are decoded to lone surrogates. Slow: `stream` reads the rows of logs,
    and this function their headers and the lines that errors are about.
    """
    with open_bytes(path) as binary:
        text = TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")
        if form.headed:
            yield from rows_of(path, text, form, _quoting(path, form))
            return
        for line, content in enumerate(text, start=1):
            content = content.rstrip("\r\n")
            if content:
                yield line, [content] if form is LINES else content.split(form.separator or None)


def rows_of(
    path: Path, lines: Iterable[str], form: Form, quotes: Quoting
) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, split into fields, with the number of their first line from 1.

    Args:
      path: the file that the lines are of, for messages.
      lines: with their line ends.
      form, quotes: how to split them.

    Raises:
      UserError: a quote of the last row is never closed.
      csv.Error: a row cannot be split.
    """
    own: list[str] = []  # lines of the row that is read
    last: list[str] = []

    def kept() -> Iterator[str]:
        for text in lines:
            own.append(text)
            yield text

    line = first = 1
    split = partial(csv.reader, delimiter=form.separator, quoting=quotes)
    reader = split(kept())
    for fields in reader:
        last, first = own.copy(), line
        own.clear()
        if fields:
            yield line, fields
        line = reader.line_num + 1
    if last and len(list(split([*last, ""]))) == 1:  # within quotes, one more line is no other row
        raise UserError(
            f"{path}, line {first}: a quote is never closed, so all that follows is one field; "
            "close or remove it, or if the file is cut off, get a whole copy of it"
        )


def first_line(path: Path) -> str:
    """The first line that is not empty.

    Raises:
      UserError: the file is empty.
    """
    for _, (line,) in records(path, LINES):
        return line
    raise UserError(f"{path} is empty")


def quoting(lines: Iterable[str], form: Form) -> Quoting:
    """Whether quotes enclose fields of a headed file, judged by its first lines.

    In tab-separated files a quote is often an ordinary character, as in the title `"Heroes`. Read
    as an opening quote, it would swallow rows up to the next quote. So in these files quotes
    enclose fields only if the header is quoted too, or if lines would have unequal numbers of
    fields otherwise.
    """
    first = list(itertools.islice(lines, _SAMPLE))
    if form.separator != "\t" or (first and first[0].startswith('"')):
        return csv.QUOTE_MINIMAL
    even = len({line.count(form.separator) for line in first}) < 2
    return csv.QUOTE_NONE if even else csv.QUOTE_MINIMAL


def _quoting(path: Path, form: Form) -> Quoting:
    return quoting((line for _, (line,) in records(path, LINES)), form)


def header(path: Path, form: Form) -> list[str]:
    """The column names in the first line.

    Raises:
      UserError: the file is empty, or its first line cannot be split.
    """
    try:
        quotes = _quoting(path, form)
        return next(csv.reader([first_line(path)], delimiter=form.separator, quoting=quotes))
    except csv.Error as error:
        raise UserError(f"{path}: cannot cut the first line into columns ({error})") from None


def line_of(path: Path, form: Form, row: int) -> int:
    """The number of the line on which row `row` begins; rows count from 0, without the header."""
    skipped = row + 1 if form.headed else row
    line, _ = next(itertools.islice(records(path, form), skipped, None))
    return line


def stream(path: Path, form: Form, columns: Mapping[str, str]) -> Iterator[dict[str, pa.Array]]:
    """The wanted columns as text, block by block.

    Args:
      path: the file; decompressed on the way if its suffix is in `UNPACKED`.
      form: how to split its lines.
      columns: the key under which a column is returned -> its name in the file.

    Raises:
      UserError: a line has too few or too many fields, or bytes that are not UTF-8; or a quote is
        never closed.
    """
    try:
        with open_bytes(path) as binary:
            quotes = form.headed and _quoting(path, form) != csv.QUOTE_NONE
            counted = _QuoteCounter(binary)
            with _open_csv(counted, form, columns, quotes=quotes) as reader:
                for batch in reader:
                    if form.separator:
                        yield {key: batch[name] for key, name in columns.items()}
                    else:
                        fields = _cut_at_white_space(batch["line"], len(form.names))
                        yield {key: fields[form.names.index(n)] for key, n in columns.items()}
        if quotes and counted.quotes % 2:  # one may be never closed, which pyarrow lets pass
            for _ in records(path, form):
                pass
    except (pa.ArrowInvalid, csv.Error):
        raise _explanation(path, form) from None


class _QuoteCounter:
    """A binary stream that counts the quotes in it, as far as it has been read."""

    closed = False  # pyarrow asks; the file below is closed by whoever opened it

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.quotes = 0

    def read(self, size: int = -1) -> bytes:
        found = self._stream.read(size)
        self.quotes += found.count(b'"')
        return found

    def close(self) -> None:
        pass


def _open_csv(
    binary: _QuoteCounter, form: Form, columns: Mapping[str, str], *, quotes: bool
) -> pa_csv.CSVStreamingReader:
    names: list[str] | None = list(form.names) or None
    types = {name: pa.string() for name in columns.values()}
    if not form.headed and not form.separator:
        names, types = ["line"], {"line": pa.string()}
    elif form.separator == "::":
        # pyarrow's separators have one character: `::` is read as two `:` around an empty column.
        nothing = [f"nothing {i}" for i in range(len(form.names) - 1)]
        names = [*itertools.chain.from_iterable(zip(form.names, nothing)), form.names[-1]]
        types |= {name: pa.null() for name in nothing}
    return pa_csv.open_csv(
        binary,
        read_options=pa_csv.ReadOptions(column_names=names, block_size=_BLOCK_BYTES),
        parse_options=pa_csv.ParseOptions(
            delimiter=form.separator[:1] or _NOT_A_DELIMITER,
            quote_char='"' if quotes else False,
            newlines_in_values=quotes,
        ),
        convert_options=pa_csv.ConvertOptions(
            include_columns=list(types),
            column_types=types,
            null_values=[""],
            strings_can_be_null=False,
        ),
    )


def _cut_at_white_space(lines: pa.StringArray, count: int) -> list[pa.StringArray]:
    fields = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(lines))
    if not pc.all(pc.equal(pc.list_value_length(fields), count)).as_py():
        raise pa.ArrowInvalid("a line with another number of fields")
    return [pc.list_element(fields, i) for i in range(count)]


def _explanation(path: Path, form: Form) -> UserError:
    """The error for a file that pyarrow could not split into columns; reads the file again."""
    expected = list(form.names)
    separator = form.separator or " "
    line = 0
    try:
        lines = records(path, form)
        for line, fields in lines:
            expected = expected or fields
            joined = separator.join(fields)
            if not is_utf8(joined):
                return UserError(
                    f"{path}, line {line}: {shorten(joined.encode(errors='surrogateescape'))} is "
                    "not UTF-8 text; convert the file to UTF-8"
                )
            stray = separator == "::" and any(":" in field for field in fields)
            if stray or len(fields) != len(expected):
                is_last = next(lines, None) is None
                count = f"{len(fields)} field{'s' * (len(fields) != 1)}"
                remedy = (
                    "the file may be cut off: get a whole copy of it"
                    if is_last and line > 1
                    else "fix the line, or name another format"
                )
                return UserError(
                    f"{path}, line {line}: {shorten(joined)} has "
                    f"{'a stray colon' if stray else count}, expected "
                    f"{separator.join(expected)!r}; {remedy}"
                )
    except csv.Error as error:
        return UserError(
            f"{path}: cannot cut the text after line {line} into fields ({error}); look for a "
            "quote that is never closed"
        )
    if not line:
        return UserError(f"{path} is empty")
    if line == 1 and fields == expected:
        return UserError(f"{path} is empty: it holds no interaction")
    return UserError(
        f"{path} cannot be read as text with the columns {', '.join(expected)}; name another format"
    )


def is_utf8(text: str) -> bool:
    """Whether a text can be encoded; bytes that were not UTF-8 were decoded to lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shorten(value: object) -> str:
    """The `repr` of a value for an error message, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
