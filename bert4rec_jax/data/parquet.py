"""Parquet logs: columns of one file, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bert4rec_jax.errors import UserError

_BATCH_ROWS = 1 << 18


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet file.

    Raises:
      UserError: the file is no Parquet file, or not a whole one.
    """
    with _open(path) as file:
        names: list[str] = file.schema_arrow.names
        return names


def stream(path: Path, columns: Mapping[str, str]) -> Iterator[dict[str, pa.Array]]:
    """The wanted columns in the types of the file, batch by batch.

    Args:
      path: the file.
      columns: the key under which a column is returned -> its name in the file.

    Raises:
      UserError: the file is no Parquet file, or not a whole one.
    """
    with _open(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns.values())):
            yield {key: batch[name] for key, name in columns.items()}


@contextmanager
def _open(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except PermissionError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (pa.ArrowInvalid, OSError):
        raise UserError(
            f"{path} is not a whole Parquet file; if a copy was cut off, copy it again"
        ) from None
