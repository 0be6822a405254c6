"""JSON requests: turns requests in JSON Lines into Parquet, whose rows a job can find by number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bert4rec_jax.data import jsonlines
from bert4rec_jax.data.delimited import suffix_of
from bert4rec_jax.data.fields import Where, timestamps
from bert4rec_jax.outputs import scratch_folder, whole_file
from bert4rec_jax.serving.request_file import require_users, tables_of
from bert4rec_jax.serving.requests import (
    CANDIDATES,
    COLUMNS,
    EXCLUDE,
    HISTORY,
    TIMES,
    USER,
    RequestReader,
    check_columns,
)
from bert4rec_jax.serving.shards import require_name

_GROUP = 1024  # rows of the Parquet file that are found, and held, at once
# The types of columns that are null in all lines, or whose lists are.
_OF_NULLS = {USER: pa.string()} | dict.fromkeys(
    (HISTORY, CANDIDATES, EXCLUDE), pa.list_(pa.string())
)


@contextmanager
def as_parquet(path: Path, output: Path, reader: RequestReader) -> Iterator[Path]:
    """`path`, or if it is JSON Lines, a Parquet file of its requests, for as long as it is open.

    That file lies beside the output of the job, where all of its machines can read it. Row i is the
    i-th line that is not blank. The same objects make the same bytes.

    Args:
      path: requests; a name such as `requests.jsonl` or `requests.jsonl.gz` tells JSON Lines.
      output: the output of the job.
      reader: says which columns are read.

    Raises:
      UserError: a line is not a JSON object, its columns are not those of requests (see
        `check_columns`), or a user is null; names the line if it can.
      TemporaryError: the file cannot be written.
    """
    if suffix_of(path) not in jsonlines.SUFFIXES or path.is_dir():
        yield path
        return
    require_name(output)
    with ExitStack() as held:
        file = held.enter_context(scratch_folder(output)) / "requests.parquet"
        with whole_file(file) as stream:
            _write(path, stream, reader)
        held = held.pop_all()
    try:
        yield file
    finally:
        held.close()  # not `with`: an `OSError` of the job is none of this file


def _write(path: Path, stream: BinaryIO, reader: RequestReader) -> None:
    read = (*COLUMNS, *reader.more_columns)
    found = jsonlines.schema(path, {name: name for name in read}, reader.id_columns)
    places = {name: place for place, name in enumerate(read)}  # whatever their order in a line
    types = pa.schema(
        sorted(map(_of_lists, found), key=lambda x: (places.get(x.name, len(read)), x.name))
    )
    dated = {name for name in TIMES if name in types.names and _is_text(types.field(name).type)}
    fields = [_in_seconds(field) if field.name in dated else field for field in types]
    check_columns(pa.schema(fields), str(path), times=reader.times)
    wanted = pa.schema([field for field in types if field.name in read])
    # The others are named in a message, so their names are kept.
    written = [field if field.name in read else field.with_type(pa.null()) for field in fields]
    groups = tables_of(jsonlines.batches(path, wanted), _GROUP)  # whatever the blocks of the text
    with pq.ParquetWriter(stream, pa.schema(written), compression="zstd") as writer:
        for number, table in enumerate(groups):
            where = partial(_place, path, number * _GROUP)
            arrays = {name: table[name].combine_chunks() for name in wanted.names}
            require_users(arrays[USER], where)
            for name in dated & arrays.keys():
                arrays[name] = _seconds(arrays[name], partial(_field, where, name))
            nothing = pa.nulls(len(table))
            columns = [arrays.get(field.name, nothing) for field in written]
            writer.write_table(pa.table(columns, schema=writer.schema))


def _place(path: Path, first: int, row: int) -> str:
    return f"{path}, line {jsonlines.line_of(path, first + row)}"


def _field(where: Where, name: str, row: int) -> str:
    return f"{where(row)}: {name}"


def _of_lists(field: pa.Field) -> pa.Field:
    return field.with_type(_OF_NULLS.get(field.name, field.type)) if _is_null(field) else field


def _is_null(field: pa.Field) -> bool:
    return bool(pa.types.is_null(field.type))


def _is_text(kind: pa.DataType) -> bool:
    """Whether a column is of text or of lists of text."""
    return bool(pa.types.is_string(kind.value_type if pa.types.is_list(kind) else kind))


def _in_seconds(field: pa.Field) -> pa.Field:
    is_list = pa.types.is_list(field.type)
    return field.with_type(pa.list_(pa.int64()) if is_list else pa.int64())


def _seconds(column: pa.Array, where: Where) -> pa.Array:
    """A column of dates in text, or of lists of them, in seconds since 1970."""
    if not pa.types.is_list(column.type):
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
        given = np.flatnonzero(column.is_valid())
        seconds = np.zeros(len(column), np.int64)
        times = timestamps(
            column.drop_null(), lambda place: where(int(given[place])), in_range=False
        )
        seconds[given] = times.seconds
        return pa.array(seconds, mask=column.is_null().to_numpy(zero_copy_only=False))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    rows = np.repeat(np.arange(len(column)), lengths)
    values = _seconds(column.flatten(), lambda place: where(int(rows[place])))
    nulls = np.append(column.is_null().to_numpy(zero_copy_only=False), False)
    offsets = pa.array(np.append(0, np.cumsum(lengths)).astype(np.int32), mask=nulls)
    return pa.ListArray.from_arrays(offsets, values)
