"""Parquet logs: columns of one file, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bert4rec_jax.data.fields import Where
from bert4rec_jax.data.grouped import is_list
from bert4rec_jax.errors import UserError
from bert4rec_jax.outputs import require_utf8

_BATCH_ROWS = 1 << 18
_BUFFER_BYTES = 1 << 20  # a row group's column is read in pieces of this size, however long


def schema(path: Path) -> pa.Schema:
    """Names and types of the columns of a Parquet file.

    Raises:
      UserError: the file is missing, unreadable, not Parquet, or cut off.
    """
    with _open(path) as file:
        return file.schema_arrow


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet file; raises as `schema` does."""
    names: list[str] = schema(path).names
    return names


def stream(path: Path, columns: Mapping[str, str]) -> Iterator[dict[str, pa.Array]]:
    """The wanted columns in the types of the file, batch by batch.

    Args:
      path: the file.
      columns: the key under which a column is returned -> its name in the file.

    Raises:
      UserError: two columns have one of the names; or see `schema` and `require_text`.
    """
    names = list(columns.values())
    first = 0
    with _open(path) as file:
        for name in names:
            require_one(file.schema_arrow, name, path)
        for group in range(file.num_row_groups):
            rows = _batch_rows(file.metadata.row_group(group), names)
            for batch in file.iter_batches(rows, row_groups=[group], columns=names):
                where = partial(_place, path, first)
                for name in names:
                    require_text(batch[name], name, where)
                first += len(batch)
                yield {key: batch[name] for key, name in columns.items()}


def require_one(schema: pa.Schema, name: str, path: Path) -> None:
    """Refuse a table with several columns of one name that is read; raises `UserError`."""
    if schema.names.count(name) > 1:
        raise UserError(
            f"{path} has {schema.names.count(name)} columns called {name!r}; expected one: rename "
            "the others"
        )


def require_text(column: pa.Array, name: str, where: Where) -> None:
    """Refuse text that is not UTF-8, which Arrow lets pass when it reads a file.

    Args:
      column: some rows of a column of any type.
      name: its name.
      where: from one of these rows to where it stands, for the message.

    Raises:
      UserError: it has such text; names the first row.
    """
    if not _has_text(column.type) or _is_valid(column):
        return
    row = next((row for row in range(len(column)) if not _is_valid(_plain(column, row))), 0)
    raise UserError(
        f"{where(row)}: column {name!r} holds text that is not UTF-8; convert the column, and "
        "write the file again"
    )


def _has_text(kind: pa.DataType) -> bool:
    while is_list(kind) or pa.types.is_dictionary(kind):
        kind = kind.value_type
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_valid(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _plain(column: pa.Array, row: int) -> pa.Array:
    """The values of one row alone, without those of others in a dictionary or in lists."""
    values = column.slice(row, 1)
    while is_list(values.type):
        values = values.flatten()
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _place(path: Path, first: int, row: int) -> str:
    return f"{path}, row {first + row + 1}"


def _batch_rows(group: pq.RowGroupMetaData, names: list[str]) -> int:
    """Rows per batch of a row group; fewer if its lists are long."""
    leaves = [group.column(i) for i in range(group.num_columns)]
    prefixes = tuple(f"{name}." for name in names)
    values = [x.num_values for x in leaves if f"{x.path_in_schema}.".startswith(prefixes)]
    return max(1, _BATCH_ROWS * group.num_rows // max([1, *values]))


@contextmanager
def _open(path: Path) -> Iterator[pq.ParquetFile]:
    require_utf8(path)
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except PermissionError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (pa.ArrowInvalid, OSError) as error:
        if "Expected all lists to be of size" in str(error):
            raise UserError(
                f"{path} has lists of a fixed size, of which some are null; pyarrow "
                f"{pa.__version__} cannot read them (pip install 'pyarrow>=26', or write the "
                "column as lists of any size)"
            ) from error
        raise UserError(
            f"{path} is not a whole Parquet file; if a copy was cut off, copy it again"
        ) from None
