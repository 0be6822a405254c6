"""Content: the feature matrix of a catalog's items, stored as a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bert4rec_jax.data.catalog import FIRST_ITEM, Catalog
from bert4rec_jax.data.store import sha256
from bert4rec_jax.errors import UserError
from bert4rec_jax.features.encoder import Encoder, Span
from bert4rec_jax.features.encoding import Encoding
from bert4rec_jax.features.movie import Movie, release_days
from bert4rec_jax.outputs import refuse_other, whole_folder

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_KIND = "bert4rec content"
_MATRIX = "content.npy"
_NAMES = "names.parquet"
_RELEASED = "release_days.npy"
_SHARED = "shared_names.parquet"
_ENCODER = "encoder.json"
_AGAIN = "make it again with `bert4rec features STORE --output DIR`"


@dataclass(frozen=True)
class Content:
    """The content of a catalog's items, memory-mapped.

    Attributes:
      path: the folder.
      manifest: schema version, catalog, blocks with their columns and coverage, sources, checksums.
      encoder: the encoder that made the rows; it also encodes movies that are added later.
    """

    path: Path
    manifest: dict[str, Any]
    encoder: Encoder

    @cached_property
    def matrix(self) -> npt.NDArray[np.float32]:
        """`[V, F]`: a row per token; those of PAD, MASK and padding are 0."""
        matrix: npt.NDArray[np.float32] = np.load(self.path / _MATRIX, mmap_mode="r")
        return matrix

    @property
    def encoding(self) -> Encoding:
        """The encoder, with the text model and how the table was read that made the content."""
        return Encoding.of(self.encoder, self.manifest)

    @cached_property
    def names(self) -> Catalog | None:
        """The catalog with titles and genres from the metadata table; None if there was none.

        Also None in content of earlier versions.
        """
        file = self.path / _NAMES
        return Catalog.read(file) if file.is_file() else None

    @cached_property
    def release_days(self) -> npt.NDArray[np.float32] | None:
        """`[V]`: the day of each item's release, in days since 1970; NaN where it is not known.

        None if it is known of no item, and in content of earlier versions.
        """
        file = self.path / _RELEASED
        return np.load(file) if file.is_file() else None

    @cached_property
    def shared_names(self) -> pa.Table | None:
        """The names of each item, see `shared_names.names_of`.

        None in content of earlier versions.
        """
        file = self.path / _SHARED
        return pq.read_table(file) if file.is_file() else None

    @property
    def width(self) -> int:
        """Number of columns F."""
        return self.encoder.width

    @property
    def blocks(self) -> tuple[Span, ...]:
        """The columns of each block."""
        return self.encoder.spans()

    def present(self) -> npt.NDArray[np.bool_]:
        """`[V]`: mask of the rows of items about which anything is known."""
        known = self.encoder.informed(self.matrix)
        stop = FIRST_ITEM + int(self.manifest["items"])
        known[:FIRST_ITEM] = known[stop:] = False
        return known

    @classmethod
    def open(cls, path: Path, catalog: Catalog) -> Content:
        """Open a folder that `write_content` made for this catalog.

        Raises:
          UserError: the folder holds no content, content of another catalog or another version, or
            is damaged.
        """
        manifest = _manifest(path)
        found = manifest["catalog_fingerprint"]
        if found != catalog.fingerprint:
            raise UserError(
                f"{path} holds the content of another catalog ({manifest['items']:,} items, "
                f"fingerprint {found[:12]}; this one has {len(catalog):,} items, "
                f"{catalog.fingerprint[:12]}); {_AGAIN}"
            )
        for name, checksum in manifest["checksums"].items():
            file = path / name
            if not file.is_file() or sha256(file) != checksum:
                raise UserError(f"{file} does not match its checksum in {MANIFEST}; {_AGAIN}")
        return cls(path, manifest, read_encoding(path).encoder)


def read_encoding(path: Path) -> Encoding:
    """Read the encoding that made the content in a folder, whatever its catalog.

    Raises:
      UserError: the folder holds no content, content of another version, or is damaged.
    """
    manifest = _manifest(path)
    try:
        values = json.loads((path / _ENCODER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path / _ENCODER} ({error}); {_AGAIN}") from None
    return Encoding.of(Encoder.from_json(values), manifest)


def made_for(path: Path) -> dict[str, Any]:
    """Manifest entries for new content that has the columns of the content in a folder.

    They say what those columns were fitted on.

    Raises:
      UserError: see `read_encoding`.
    """
    manifest = _manifest(path)
    fitted = {
        name: manifest.get(name) for name in ("split", "time_quantile", "test_from", "fitted_items")
    }
    return {**fitted, "like": True}


def content_rows(catalog: Catalog, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`[V, F]`: the rows of a catalog's items at their tokens, and 0 elsewhere."""
    matrix = np.zeros((catalog.num_rows, rows.shape[1]), np.float32)
    matrix[catalog.is_item()] = rows
    return matrix


def release_days_of(catalog: Catalog, movies: Sequence[Movie]) -> npt.NDArray[np.float32] | None:
    """The release days of a catalog's movies, in its order, as in `Content.release_days`."""
    days = np.full(catalog.num_rows, np.nan, np.float32)
    days[catalog.is_item()] = release_days(movies)
    return days if np.isfinite(days).any() else None


def require_replaceable(path: Path) -> None:
    """Check that `write_content` may write to a path, before any work is done.

    Raises:
      UserError: `path` exists and is neither content nor an empty folder, or has folders in it.
    """
    message = "exists and is not content; choose another folder"
    refuse_other(path, earlier=_is_content(path), message=message)


def _is_content(path: Path) -> bool:
    try:
        kind = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(kind == _KIND)


def write_content(
    path: Path,
    catalog: Catalog,
    matrix: npt.NDArray[np.float32],
    encoder: Encoder,
    about: dict[str, Any],
    names: Catalog | None = None,
    release_days: npt.NDArray[np.float32] | None = None,
    shared_names: pa.Table | None = None,
) -> Content:
    """Write content as a folder, which appears complete or not at all.

    Args:
      path: the folder to make, or earlier content to replace.
      catalog: the items.
      matrix: `[V, F]`.
      encoder: the encoder that made the matrix.
      about: more entries of the manifest.
      names: the catalog with titles and genres from the metadata table, if there was one.
      release_days: see `Content.release_days`.
      shared_names: see `Content.shared_names`.

    Raises:
      UserError: `path` exists and is neither content nor an empty folder, or it cannot be written.
    """
    require_replaceable(path)
    with whole_folder(path) as partial:
        np.save(partial / _MATRIX, matrix, allow_pickle=False)
        (partial / _ENCODER).write_text(encoder.dumps(), encoding="utf-8")
        if names is not None:
            names.write(partial / _NAMES)
        if release_days is not None:
            np.save(partial / _RELEASED, release_days, allow_pickle=False)
        if shared_names is not None:
            pq.write_table(shared_names, partial / _SHARED)
        manifest = {
            "kind": _KIND,
            "schema_version": SCHEMA_VERSION,
            "catalog_fingerprint": catalog.fingerprint,
            "items": len(catalog),
            "shape": list(matrix.shape),
            **about,
            "checksums": {file.name: sha256(file) for file in sorted(partial.iterdir())},
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return Content.open(path, catalog)


def _manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} holds no content ({MANIFEST} is missing); {_AGAIN}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} ({error}); {_AGAIN}") from None
    if not isinstance(manifest, dict) or manifest.get("kind") != _KIND:
        raise UserError(f"{path} holds something else than content; {_AGAIN}")
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise UserError(
            f"{path} was made with schema {manifest['schema_version']}, this version reads "
            f"{SCHEMA_VERSION}; {_AGAIN}"
        )
    return manifest
