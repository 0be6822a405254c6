"""RequestFile: requests in Parquet, checked before work begins and streamed in equal shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bert4rec_jax.data.delimited import require_regular, suffix_of
from bert4rec_jax.data.fields import Where
from bert4rec_jax.data.jsonlines import line_of
from bert4rec_jax.data.parquet import require_one, require_text
from bert4rec_jax.data.store import sha256
from bert4rec_jax.errors import UserError, first_line
from bert4rec_jax.outputs import require_utf8
from bert4rec_jax.serving.requests import COLUMNS, USER, check_columns

_BATCH_ROWS = 8192  # read at once; with a buffer, so that memory does not grow with row groups
_BUFFER = 1 << 20
_TEXT = (".csv", ".tsv", ".txt")
_LINE = '{"user_id": "7", "history": ["0133093", "0083658"]}'


@dataclass(frozen=True)
class RequestFile:
    """One Parquet file, or a folder of them in the order of their names.

    Attributes:
      path: the file or folder, as given; only for messages.
      files: the Parquet files.
      schema: the schema of the columns that are read.
      rows: requests in all files.
      rows_of: requests in each file.
      duplicate_users: rows whose user has an earlier row.
      sha256: over the contents of all files.
      ignored: columns of the first file that are not read.
      lines_of: the JSON Lines that the only file was made of, to name lines in messages; or None.
    """

    path: Path
    files: tuple[Path, ...]
    schema: pa.Schema
    rows: int
    rows_of: tuple[int, ...]
    duplicate_users: int
    sha256: str
    ignored: tuple[str, ...] = ()
    lines_of: Path | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        more_columns: Sequence[str] = (),
        *,
        times: bool = False,
        name: Path | None = None,
        lines_of: Path | None = None,
    ) -> RequestFile:
        """Check a file of requests: its columns, and that every row has a user.

        Takes one pass over the column of users, and 8 bytes of memory per request.

        Args:
          path: the file or folder.
          more_columns: columns to read besides `COLUMNS`, where they exist.
          times: whether these are columns of times too, `requests.TIMES`.
          name: what to call it in messages, if not by its path.
          lines_of: see the class.

        Raises:
          UserError: it cannot be read, its columns are not those of requests (see `check_columns`)
            or differ between files, or a user is null or not UTF-8.
        """
        files: tuple[Path, ...] = (path,)
        if path.is_dir():  # without hidden files, as query engines do
            found = sorted(path.glob("*.parquet"))
            files = tuple(file for file in found if not file.name.startswith((".", "_")))
        if not files:
            raise UserError(
                f"{path} is a folder without *.parquet files; expected requests (JSON Lines have "
                f"to be one file: cat {path}/*.jsonl > requests.jsonl)"
            )
        schemas = []
        ignored: tuple[str, ...] = ()
        hashes: list[npt.NDArray[np.int64]] = []
        rows_of = []
        for file in files:
            with _reading(file) as opened:
                schema = opened.schema_arrow
                check_columns(schema, str(file), times=times)
                for column in more_columns:
                    require_one(schema, column, file)
                read = (*COLUMNS, *more_columns)
                schemas.append(_of_columns(schema, read))
                rows_of.append(opened.metadata.num_rows)
                if file == files[0]:
                    ignored = tuple(name for name in schema.names if name not in read)
                if schemas[-1] != schemas[0]:
                    raise UserError(
                        f"{file} and {files[0]} have different columns ({_described(schemas[-1])}; "
                        f"{_described(schemas[0])}); write all files of a folder alike"
                    )
                hashes.extend(_hashed_users(opened, file))
        users = np.concatenate(hashes) if hashes else np.zeros(0, np.int64)
        del hashes  # there may be many users: free memory, and sort in place
        users.sort()
        return cls(
            path=name or path,
            files=files,
            schema=schemas[0],
            rows=len(users),
            rows_of=tuple(rows_of),
            duplicate_users=int((users[1:] == users[:-1]).sum()),
            sha256=_fingerprint(files),
            ignored=ignored,
            lines_of=lines_of,
        )

    def where(self, first: int) -> Where:
        """From a row, counted from row `first`, to where it stands, for messages."""
        lines = self.lines_of
        if lines is not None:
            return lambda row: f"{self.path}, line {line_of(lines, first + row)}"
        return lambda row: f"{self.path}, row {first + row}"

    def shards(self, size: int, first: int) -> Iterator[tuple[int, pa.Table]]:
        """Yield numbered tables of `size` rows (the last may be shorter), from shard `first` on.

        Without any requests there is one empty shard.

        Raises:
          UserError: a file cannot be read any more, or has other columns or rows by now, or text
            that is not UTF-8.
        """
        yield from enumerate(tables_of(self._batches(first * size), size), first)
        if not self.rows:
            yield first, self.schema.empty_table()

    def require_unchanged(self) -> None:
        """Check that the files are those that were opened; reads all of them.

        Raises:
          UserError: they are not.
        """
        try:
            same = _fingerprint(self.files) == self.sha256
        except OSError:
            same = False
        if not same:
            raise UserError(_changed(self.path))

    def _batches(self, skip: int) -> Iterator[pa.RecordBatch]:
        """All rows after the first `skip`; row groups that end before those are not read."""
        for file, rows_then in zip(self.files, self.rows_of):
            with _reading(file) as opened:
                same = _of_columns(opened.schema_arrow, self.schema.names) == self.schema
                if not same or opened.metadata.num_rows != rows_then:
                    raise UserError(_changed(file))
                groups: list[int] = []
                first = 0  # row of the file
                for group in range(opened.num_row_groups):
                    rows = opened.metadata.row_group(group).num_rows
                    if groups or rows > skip:
                        groups.append(group)
                    else:
                        skip -= rows
                        first += rows
                batches = (  # of one row group each: a batch cannot hold more than 2 GiB of text
                    opened.iter_batches(_BATCH_ROWS, row_groups=[group], columns=self.schema.names)
                    for group in groups
                )
                for batch in chain.from_iterable(batches):
                    for name in self.schema.names:
                        require_text(batch[name], name, partial(_place, file, first))
                    first += len(batch)
                    dropped = min(skip, len(batch))
                    skip -= dropped
                    if dropped < len(batch):
                        kept = batch.slice(dropped)
                        yield pa.RecordBatch.from_arrays(kept.columns, schema=self.schema)


def tables_of(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of `size` rows; the last may be shorter."""
    waiting: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        waiting.append(batch)
        held += len(batch)
        while held >= size:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, size)
            waiting = table.slice(size).to_batches()
            held -= size
    if held:
        yield pa.Table.from_batches(waiting)


def _of_columns(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """Those of the named columns that a file has, whether or not it declares them nullable."""
    return pa.schema([schema.field(c).with_nullable(True) for c in names if c in schema.names])


def _changed(path: Path) -> str:
    return (
        f"{path} changed while its requests were answered; run the same command again with "
        "requests that stay as they are"
    )


def _hashed_users(opened: pq.ParquetFile, file: Path) -> Iterator[npt.NDArray[np.int64]]:
    """64-bit hashes of the users, batch by batch: enough to count repeated users."""
    row = 0
    for batch in opened.iter_batches(_BATCH_ROWS * 8, columns=[USER]):
        users = batch[USER]
        where = partial(_place, file, row)
        require_users(users, where)
        require_text(users, USER, where)
        row += len(users)
        values: list[Any] = users.to_pylist()
        # As text, because Python's hashes of -1 and -2 are the same.
        yield np.fromiter(map(hash, map(str, values)), np.int64, len(values))


def _place(file: Path, first: int, row: int) -> str:
    return f"{file}, row {first + row}"


def require_users(users: pa.Array, where: Where) -> None:
    """Refuse a request without a user; raises `UserError`."""
    if users.null_count:
        null = int(np.argmax(users.is_null().to_numpy(zero_copy_only=False)))
        raise UserError(
            f"{where(null)}: column {USER!r} is null; every request needs a user to be answered to"
        )


def _fingerprint(files: tuple[Path, ...]) -> str:
    if len(files) == 1:
        return sha256(files[0])
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


@contextmanager
def _reading(file: Path) -> Iterator[pq.ParquetFile]:
    require_utf8(file)
    require_regular(file)
    try:
        with pq.ParquetFile(file, buffer_size=_BUFFER) as opened:
            yield opened
    except FileNotFoundError:
        raise UserError(
            f"{file} does not exist; expected requests in Parquet or JSON Lines"
        ) from None
    except PermissionError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except (pa.ArrowException, OSError) as error:
        if suffix_of(file) in _TEXT:
            raise UserError(
                f"{file} is a table of text, which has no lists; write Parquet, or a file that "
                f"ends in .jsonl with one request per line, such as {_LINE}"
            ) from None
        raise UserError(
            f"{file} is not a whole Parquet file ({first_line(error)}); if a copy "
            "was cut off, copy it again"
        ) from None
