"""Interactions written as tuples, and read from logs, for all tests."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert4rec_jax.data.interactions import Interactions
from bert4rec_jax.data.readers import read_log


def interactions(rows):
    """Interactions from (user, item, timestamp[, rating]) tuples."""
    users = pa.array([str(row[0]) for row in rows]).dictionary_encode()
    items = pa.array([str(row[1]) for row in rows]).dictionary_encode()
    return Interactions(
        users=users.indices.to_numpy().astype(np.int32),
        items=items.indices.to_numpy().astype(np.int32),
        timestamps=np.array([row[2] for row in rows], np.int64),
        ratings=np.array([row[3] if len(row) > 3 else np.nan for row in rows], np.float32),
        user_ids=users.dictionary,
        item_ids=items.dictionary,
    )


def whole(path, **options):
    """All rows of a log as one block."""
    (block,) = read_log(path, **options).blocks(1 << 40)
    return block.interactions


def write_parquet(table, path):
    """Write a table whose types not every version of pyarrow that is supported can write."""
    try:
        pq.write_table(table, path)
    except pa.ArrowNotImplementedError as error:
        pytest.skip(f"pyarrow {pa.__version__}: {error}")
