"""Store requests: writes a file with a request for every user of a prepared log."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bert4rec_jax.data.catalog import FIRST_ITEM
from bert4rec_jax.data.store import SequenceStore, is_store
from bert4rec_jax.errors import UserError
from bert4rec_jax.features.known_users import read_user_columns
from bert4rec_jax.outputs import whole_file
from bert4rec_jax.serving.ragged import text_ranges
from bert4rec_jax.serving.requests import HISTORY, RATINGS, TIMESTAMPS, USER

_USERS = 65_536  # in memory at once, or fewer if their histories are long


@contextmanager
def request_file(path: Path, users: Path | None = None, *, times: bool = False) -> Iterator[Path]:
    """A file of requests: `path` itself, or a temporary one if `path` is a store.

    Args:
      path: a store, or what `RequestFile.open` reads.
      users: a table of user features to add to the requests of a store, see `read_user_columns`.
      times: whether these requests say when each item was seen, if the store does.

    Raises:
      UserError: the store or the table cannot be read, the store has changed, or there is no room
        for the file; or `users` is given and `path` is no store.
    """
    if not is_store(path):
        if users is not None:
            raise UserError(
                f"{users} adds features to the users of a folder made by `bert4rec prepare`, and "
                f"{path} is none; requests in a file have user features as columns of their own"
            )
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="requests-") as folder:
        file = Path(folder) / f"{path.resolve().name}.parquet"
        store = SequenceStore.open(path)
        store.verify()
        columns = {} if users is None else read_user_columns(users, store.user_ids())
        write_requests(store, file, columns, times=times and store.timed)
        yield file


def write_requests(
    store: SequenceStore,
    file: Path,
    features: Mapping[str, Sequence[Any]] = MappingProxyType({}),
    *,
    times: bool = False,
) -> None:
    """Write a request per user with the whole history, and with ratings if the log has any.

    Requests are in the order of the store. `features` are more columns: name -> a value per user.
    With `times`, the times of the events are written too.

    Raises:
      TemporaryError: it cannot be written.
    """
    users = pa.array(store.user_ids(), pa.string())
    item_ids = pa.array(store.catalog.item_ids, pa.string())
    rated = any(
        np.isfinite(store.ratings[start : start + (1 << 20)]).any()
        for start in range(0, store.num_interactions, 1 << 20)
    )
    fields = [(USER, pa.string()), (HISTORY, pa.list_(pa.string()))]
    more = {name: _column(name, values) for name, values in features.items()}
    fields += [(RATINGS, pa.list_(pa.float32()))] if rated else []
    fields += [(TIMESTAMPS, pa.list_(pa.int64()))] if times else []
    schema = pa.schema([*fields, *((name, values.type) for name, values in more.items())])
    with whole_file(file) as stream, pq.ParquetWriter(stream, schema) as writer:
        for first, stop in _ranges(store, item_ids):
            bounds = store.offsets[first : stop + 1]
            rows = slice(int(bounds[0]), int(bounds[-1]))
            lists = pa.array(bounds - bounds[0], pa.int32())
            items = item_ids.take(pa.array(store.tokens[rows] - FIRST_ITEM))
            columns = [users.slice(first, stop - first), pa.ListArray.from_arrays(lists, items)]
            if rated:
                values = pa.array(np.asarray(store.ratings[rows]), pa.float32())
                columns.append(pa.ListArray.from_arrays(lists, values))
            if times:
                values = pa.array(np.asarray(store.timestamps[rows]), pa.int64())
                columns.append(pa.ListArray.from_arrays(lists, values))
            columns += [values.slice(first, stop - first) for values in more.values()]
            writer.write_table(pa.table(columns, schema=schema))


def _ranges(store: SequenceStore, item_ids: pa.StringArray) -> Iterator[tuple[int, int]]:
    for start in range(0, store.num_users, _USERS):
        lengths = np.diff(store.offsets[start : start + _USERS + 1])
        for first, stop in text_ranges(lengths, item_ids):
            yield start + first, start + stop


def _column(name: str, values: Sequence[Any]) -> pa.Array:
    try:
        column = pa.array(values)
    except (pa.ArrowException, OverflowError) as error:
        raise UserError(
            f"the column {name!r} of users holds values of several kinds ({error}); expected text, "
            "numbers, or lists of text in all rows"
        ) from None
    if pa.types.is_struct(column.type):
        raise UserError(f"the column {name!r} of users holds objects; remove it")
    return column
