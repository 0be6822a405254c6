"""Tables: a data frame, or any other table in memory, as a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bert4rec_jax.data.columns import Columns
from bert4rec_jax.data.grouped import is_list
from bert4rec_jax.data.options import Format
from bert4rec_jax.data.readers import RawLog, read_log
from bert4rec_jax.errors import UserError
from bert4rec_jax.outputs import scratch_folder, whole_file

TABLE = "table"
"""The name of a source that is not a file."""


class ArrowTable(Protocol):
    """A pandas or polars data frame, a pyarrow table, or any other object that Arrow can read."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """See the Arrow PyCapsule interface."""
        ...


@contextmanager
def table_log(
    table: ArrowTable,
    output: Path,
    format: Format | None,
    columns: Columns | None,
    titles: Path | None,
) -> Iterator[RawLog]:
    """Open a table as a log; it is stored in a temporary file while the context is open."""
    if not hasattr(table, "__arrow_c_stream__"):
        raise UserError(
            f"the log is of type {type(table).__name__}; expected a path, the name of a data set, "
            "or a table that Arrow can read, such as a data frame of pandas (from 2.2) or polars"
        )
    if format is not None:
        raise UserError(f"the log is a table, and the format {format!r} is one of files; leave it")
    with scratch_folder(output) as folder:
        file = folder / f"{TABLE}.parquet"
        try:
            with whole_file(file) as stream:
                pq.write_table(_with_plain_text(pa.table(table)), stream)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise UserError(
                f"the table cannot be read as one ({error}); expected columns of one type each"
            ) from None
        try:
            yield read_log(file, columns=columns, titles=titles)
        except UserError as error:  # the caller does not know the temporary file
            raise type(error)(str(error).replace(str(file), "the table")) from None


def _with_plain_text(table: pa.Table) -> pa.Table:
    """A table whose text has a type that all pyarrow kernels support: polars has string views."""
    columns = [
        pa.chunked_array(map(_plain, column.chunks)) if len(column) else pa.nulls(0)
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)  # two of one name are refused when read


def _plain(column: pa.Array) -> pa.Array:
    """Cast string views to text, also inside lists, and decode dictionaries."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.dictionary).take(column.indices)
    if is_list(kind) and not pa.types.is_fixed_size_list(kind):
        made = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
        lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        # Offsets anew, because those of a slice do not begin at 0.
        offsets = pa.array(np.cumsum([0, *lengths]), made.from_arrays([0], []).offsets.type)
        return made.from_arrays(offsets, _plain(column.flatten()), mask=column.is_null())
    return column.cast(pa.large_string()) if pa.types.is_string_view(kind) else column
