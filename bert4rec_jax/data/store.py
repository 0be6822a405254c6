"""SequenceStore: every user's history as memory-mapped arrays (CSR), with random access."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bert4rec_jax.data.catalog import FIRST_ITEM, Catalog
from bert4rec_jax.data.interactions import Interactions
from bert4rec_jax.errors import UserError
from bert4rec_jax.outputs import whole_folder

SCHEMA_VERSION = 1
ARRAYS = ("offsets", "tokens", "ratings", "timestamps")
MANIFEST = "manifest.json"
_CATALOG = "catalog.parquet"
_USERS = "users.parquet"


@dataclass(frozen=True)
class SequenceStore:
    """A folder of arrays: user `u` has the rows `offsets[u]:offsets[u + 1]`, oldest first.

    The arrays are opened with `mmap_mode="r"`: training memory does not grow with the data, and
    pickling a store sends only its path.

    Attributes:
      path: the folder.
      manifest: schema version, source, counts and a SHA-256 per file.
    """

    path: Path
    manifest: dict[str, Any]

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """`[U + 1]`: where each user's rows begin."""
        return self._array("offsets")

    @cached_property
    def tokens(self) -> npt.NDArray[np.int32]:
        """`[N]`: item tokens."""
        return self._array("tokens")

    @cached_property
    def ratings(self) -> npt.NDArray[np.float32]:
        """`[N]`: ratings, NaN where unrated."""
        return self._array("ratings")

    @cached_property
    def timestamps(self) -> npt.NDArray[np.int64]:
        """`[N]`: seconds since 1970, or the row number where the log has no time (see `timed`)."""
        return self._array("timestamps")

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog that gives the tokens their meaning."""
        return Catalog.read(self.path / _CATALOG)

    def user_ids(self) -> list[str]:
        """External user ids, in row order."""
        ids: list[str] = pq.read_table(self.path / _USERS)["user_id"].to_pylist()
        return ids

    @property
    def num_users(self) -> int:
        """Number of users U."""
        return int(self.manifest["users"])

    @property
    def num_interactions(self) -> int:
        """Number of interactions N."""
        return int(self.manifest["interactions"])

    @property
    def timed(self) -> bool:
        """Whether the log had real timestamps."""
        return bool(self.manifest["timed"])

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """`[U]`: interactions per user."""
        return np.diff(self.offsets)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the checksums of all files: equal fingerprints mean equal data."""
        checksums = json.dumps(self.manifest["checksums"], sort_keys=True)
        return hashlib.sha256(checksums.encode()).hexdigest()

    def history(self, user: int) -> npt.NDArray[np.int32]:
        """All tokens of one user, oldest first."""
        return self.tokens[self.offsets[user] : self.offsets[user + 1]]

    def verify(self) -> None:
        """Compare every file with its checksum.

        Raises:
          UserError: a file is missing or has changed.
        """
        for name, expected in self.manifest["checksums"].items():
            file = self.path / name
            if not file.is_file():
                raise UserError(f"{file} is missing; prepare the data again")
            if sha256(file) != expected:
                raise UserError(
                    f"{file} does not match its checksum in {MANIFEST}; prepare the data again"
                )

    def _array(self, name: str) -> npt.NDArray[Any]:
        file = self.path / f"{name}.npy"
        try:
            array: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {file} ({error}); prepare the data again") from None
        return array

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "manifest": self.manifest}

    @classmethod
    def open(cls, path: Path) -> SequenceStore:
        """Open a folder that `write_store` made.

        Raises:
          UserError: the folder holds no store, or one of another schema.
        """
        manifest_path = path / MANIFEST
        try:
            manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{path} holds no prepared data ({MANIFEST} is missing); make it with "
                "`bert4rec prepare SOURCE --output DIR`"
            ) from None
        except ValueError as error:
            raise UserError(f"cannot read {manifest_path} ({error}); prepare again") from None
        found = manifest.get("schema_version") if isinstance(manifest, dict) else None
        if found != SCHEMA_VERSION:
            raise UserError(
                f"{path} was prepared with schema {found}, this version reads {SCHEMA_VERSION}; "
                "prepare the data again"
            )
        return cls(path, manifest)


def is_store(path: Path) -> bool:
    """Whether a folder holds prepared data."""
    return (path / MANIFEST).is_file()


def require_replaceable(path: Path) -> None:
    """Refuse a place where `write_store` may not write, before any work is done.

    Raises:
      UserError: `path` exists and is neither a store nor an empty folder.
    """
    if path.exists() and not is_store(path) and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists and is not prepared data; choose another folder")


def write_store(
    interactions: Interactions,
    path: Path,
    *,
    titles: dict[str, tuple[str, str]],
    source: dict[str, Any],
) -> SequenceStore:
    """Write interactions as a store; the folder appears whole or not at all.

    Args:
      interactions: rows sorted by `Interactions.in_time_order`, at least one.
      path: the folder to make; it must not exist, or be an earlier store (which is replaced).
      titles: external item id -> (title, genres separated by `|`); missing ids show as themselves.
      source: where the data came from and how it was filtered; kept in the manifest.

    Raises:
      UserError: `path` exists and is not a store, or the disk is full.
    """
    require_replaceable(path)
    path = path.resolve()
    order, tokens = _tokens_by_appearance(interactions.items, len(interactions.item_ids))
    item_ids = interactions.item_ids.take(pa.array(order)).to_pylist()
    catalog = Catalog(
        tuple(item_ids),
        tuple(titles.get(item, (item, ""))[0] for item in item_ids),
        tuple(titles.get(item, (item, ""))[1] for item in item_ids),
    )
    starts = np.flatnonzero(np.diff(interactions.users, prepend=-1))
    arrays: dict[str, npt.NDArray[Any]] = {
        "offsets": np.append(starts, len(interactions)).astype(np.int64),
        "tokens": tokens,
        "ratings": interactions.ratings,
        "timestamps": interactions.timestamps,
    }
    user_ids = interactions.user_ids.take(pa.array(interactions.users[starts]))
    return _write(path, arrays, catalog, user_ids, timed=interactions.timed, source=source)


def write_arranged(
    store: SequenceStore,
    path: Path,
    *,
    rows: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    users: npt.NDArray[np.int64],
    source: dict[str, Any],
) -> SequenceStore:
    """Write some rows of a store as a store of their own, with the same catalog.

    Args:
      store: where the rows come from.
      path: see `write_store`.
      rows: `[N]` rows of `store`, user by user; one may occur several times.
      offsets: `[U + 1]`: where each user's rows begin.
      users: `[U]`: which user of `store` each one is; one may occur several times.
      source: see `write_store`.

    Raises:
      UserError: see `write_store`.
    """
    require_replaceable(path)
    arrays: dict[str, npt.NDArray[Any]] = {
        "offsets": offsets,
        "tokens": store.tokens[rows],
        "ratings": store.ratings[rows],
        "timestamps": store.timestamps[rows],
    }
    user_ids = pa.array(store.user_ids()).take(pa.array(users))
    return _write(path.resolve(), arrays, store.catalog, user_ids, timed=store.timed, source=source)


def _write(
    path: Path,
    arrays: dict[str, npt.NDArray[Any]],
    catalog: Catalog,
    user_ids: pa.Array,
    *,
    timed: bool,
    source: dict[str, Any],
) -> SequenceStore:
    with whole_folder(path) as partial:
        for name in ARRAYS:
            np.save(partial / f"{name}.npy", arrays[name], allow_pickle=False)
        catalog.write(partial / _CATALOG)
        pq.write_table(pa.table({"user_id": user_ids}), partial / _USERS)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "users": len(user_ids),
            "items": len(catalog),
            "interactions": len(arrays["tokens"]),
            "timed": timed,
            "catalog_fingerprint": catalog.fingerprint,
            "source": source,
            "checksums": {file.name: sha256(file) for file in sorted(partial.iterdir())},
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return SequenceStore.open(path)


def _tokens_by_appearance(
    items: npt.NDArray[np.int32], num_codes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Item codes that occur, in order of first appearance, and the token of every row."""
    first_row = np.full(num_codes, len(items), np.int64)
    # Where an index repeats, the last value assigned stays: backwards, that is the first row.
    first_row[items[::-1]] = np.arange(len(items) - 1, -1, -1)
    order = np.argsort(first_row, kind="stable")[: np.count_nonzero(first_row < len(items))]
    token_of = np.zeros(num_codes, np.int32)
    token_of[order] = np.arange(len(order), dtype=np.int32) + FIRST_ITEM
    return order, token_of[items]


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
