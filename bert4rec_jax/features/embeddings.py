"""Embeddings: precomputed item vectors, validated and put in a catalog's order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bert4rec_jax.data import parquet
from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.data.delimited import shorten
from bert4rec_jax.data.grouped import is_list
from bert4rec_jax.errors import UserError
from bert4rec_jax.features.match import ID_COLUMNS, Match, best, candidate, plain
from bert4rec_jax.features.vectors import Vectors

_FEW = 0.1  # if a smaller share of the shorter side matches, the file is for another catalog
_WAY_OUT = "call the column with the catalog's ids item_id, or give a file with these items"


def read_embeddings(
    path: Path, catalog: Catalog, *, id_map: Mapping[str, str] | None = None
) -> Vectors:
    """Read one vector per item of a catalog from a file.

    A `.npy` file holds `[len(catalog), D]` numbers in the catalog's order. A Parquet file holds a
    column of ids (one of `match.ID_COLUMNS`, or the only other column; `item_id` means the
    catalog's own ids) and one column of lists of D numbers; items without a row, and rows whose
    list is null, have no vector. A file of the same name that ends in `.json` may hold
    `{"catalog_fingerprint": "..."}`, which is then compared.

    Raises:
      UserError: the file cannot be read, has the wrong shape, values that are not finite, two
        vectors for one item, or was made for another catalog.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        _check_fingerprint(path, catalog)
        return _of_npy(path, catalog)
    if suffix == ".parquet":
        return _of_parquet(path, catalog, id_map)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    raise UserError(
        f"{path} is of no known format; expected embeddings in a file that ends in .npy or .parquet"
    )


def _check_fingerprint(path: Path, catalog: Catalog) -> None:
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return
    try:
        found = json.loads(sidecar.read_text(encoding="utf-8"))["catalog_fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'cannot read {sidecar} ({error!r}); expected {{"catalog_fingerprint": "..."}} of the '
            f"catalog that {path.name} was made for: fix or remove it"
        ) from None
    if found != catalog.fingerprint:
        raise UserError(
            f"{path} was made for another catalog: {sidecar.name} has the fingerprint "
            f"{shorten(found)}, expected {catalog.fingerprint!r}; make the embeddings again for "
            "these items"
        )


def _of_npy(path: Path, catalog: Catalog) -> Vectors:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is not a whole .npy file ({error}); write it again") from None
    if not isinstance(values, np.ndarray):
        raise UserError(f"{path} is an archive of several arrays (.npz); expected one array (.npy)")
    if values.dtype.kind not in "fiu":
        raise UserError(f"{path} holds values of type {values.dtype}; expected numbers")
    if values.ndim != 2 or len(values) != len(catalog) or not values.shape[1]:
        raise UserError(
            f"{path} has the shape {list(values.shape)}; expected [{len(catalog)}, D], a row of D "
            "numbers for each item in the catalog's order: give the file for this catalog, or "
            "Parquet with a column of ids"
        )
    with np.errstate(over="ignore"):  # values that overflow are refused below
        rows = np.array(values, np.float32)
    _refuse_nonfinite(rows, lambda row: f"{path}, row {row + 1} (item {catalog.item_ids[row]!r})")
    return Vectors(rows, np.ones(len(rows), bool))


def _of_parquet(path: Path, catalog: Catalog, id_map: Mapping[str, str] | None) -> Vectors:
    vector_column, id_columns = _columns(path)
    match = _match(path, catalog, id_columns, id_map)
    rows: npt.NDArray[np.float32] | None = None
    seen: dict[str, int] = {}
    for at, ids, vectors in _batches(path, match.column, vector_column):
        keep = [
            (row, key)
            for row, value in enumerate(ids)
            if (key := match.key(value)) in match.items
            and key is not None
            and vectors[row].is_valid
        ]
        for row, key in keep:
            if key in seen:
                raise UserError(
                    f"{path}, row {at + row + 1}: the {match.column} {ids[row]!r} has a vector in "
                    f"row {seen[key]} too; expected one each: remove one of them"
                )
            seen[key] = at + row + 1
        if not keep:
            continue
        dim = None if rows is None else rows.shape[1]
        matrix = _matrix(path, vectors, [row for row, _ in keep], at, dim)
        if rows is None:
            rows = np.zeros((len(catalog), matrix.shape[1]), np.float32)
        for (_, key), vector in zip(keep, matrix):
            rows[match.items[key]] = vector
    if rows is None:
        raise UserError(f"{path}: every list in {vector_column!r} that matches an item is null")
    present = np.zeros(len(catalog), bool)
    present[[position for key in seen for position in match.items[key]]] = True
    return Vectors(rows, present)


def _columns(path: Path) -> tuple[str, list[str]]:
    """The name of the column of vectors, and the names of those that may hold ids."""
    names = parquet.column_names(path)
    schema = pq.read_schema(path)
    lists = [field.name for field in schema if _is_vector(field.type)]
    if len(lists) != 1:
        raise UserError(
            f"{path} has {len(lists)} columns of lists of numbers; its columns are "
            f"{', '.join(map(repr, names))}: expected one column of ids and one of lists"
        )
    ids = [name for name in ID_COLUMNS if name in names]
    rest = [name for name in names if name != lists[0]]
    if not ids and len(rest) != 1:
        raise UserError(
            f"{path} has none of {', '.join(ID_COLUMNS)}; its columns are "
            f"{', '.join(map(repr, names))}: expected one column of ids and one of lists"
        )
    return lists[0], ids or rest


def _match(
    path: Path, catalog: Catalog, id_columns: list[str], id_map: Mapping[str, str] | None
) -> Match:
    values: dict[str, set[str]] = {name: set() for name in id_columns}
    for batch in parquet.stream(path, dict(zip(id_columns, id_columns))):
        for name, ids in batch.items():
            values[name].update(filter(None, map(plain, ids.to_pylist())))
    candidates = [candidate(name, values[name], catalog, id_map) for name in id_columns]
    chosen = best(path, candidates, catalog, _WAY_OUT)
    fewer = min(len(catalog), len(chosen.keys))
    if chosen.matched < _FEW * fewer:
        raise UserError(
            f"{path} was made for another catalog: of its {len(chosen.keys):,} ids in "
            f"{chosen.match.column} and the {len(catalog):,} items of the catalog only "
            f"{chosen.matched:,} match; make the embeddings again for these items"
        )
    return chosen.match


def _batches(
    path: Path, id_column: str, vector_column: str
) -> Iterator[tuple[int, list[Any], pa.Array]]:
    """(Number of rows before a batch, its ids, its vectors) for each batch."""
    at = 0
    for batch in parquet.stream(path, {"id": id_column, "vector": vector_column}):
        yield at, batch["id"].to_pylist(), batch["vector"]
        at += len(batch["id"])


def _matrix(
    path: Path, vectors: pa.Array, rows: list[int], at: int, dim: int | None
) -> npt.NDArray[np.float32]:
    """`[len(rows), D]`: the vectors in some rows of a batch, whose row 0 is row `at` of the file.

    All have length D: `dim`, or the length of the first one if `dim` is None.
    """
    chosen = vectors.take(pa.array(rows))
    lengths = np.asarray(chosen.value_lengths())
    dim = int(lengths[0]) if dim is None else dim
    if not dim:
        raise UserError(f"{path}, row {at + rows[0] + 1}: the vector is empty; expected numbers")
    uneven = lengths != dim
    if uneven.any():
        row = int(uneven.argmax())
        raise UserError(
            f"{path}, row {at + rows[row] + 1}: the vector has {lengths[row]} numbers, expected "
            f"{dim} as before; use one model and one width for all"
        )
    values = chosen.flatten().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        matrix: npt.NDArray[np.float32] = values.astype(np.float32).reshape(len(rows), dim)
    _refuse_nonfinite(matrix, lambda row: f"{path}, row {at + rows[row] + 1}")
    return matrix


def _refuse_nonfinite(rows: npt.NDArray[np.float32], where: Callable[[int], str]) -> None:
    bad = ~np.isfinite(rows)
    if bad.any():
        row = int(bad.any(axis=1).argmax())
        raise UserError(
            f"{where(row)}: the vector holds {rows[row][bad[row]][0]}; expected finite numbers: "
            "compute it again"
        )


def _is_vector(kind: pa.DataType) -> bool:
    return is_list(kind) and (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    )
