"""SequenceStore: every user's history as memory-mapped arrays (CSR), with random access."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bert4rec_jax.data.catalog import FIRST_ITEM, Catalog
from bert4rec_jax.data.interactions import Interactions
from bert4rec_jax.data.k_core import add_counts
from bert4rec_jax.data.rows import ArrayFile
from bert4rec_jax.errors import UserError
from bert4rec_jax.outputs import refuse_other, require_utf8, whole_folder

SCHEMA_VERSION = 1
COLUMNS: dict[str, npt.DTypeLike] = {
    "tokens": np.int32, "ratings": np.float32, "timestamps": np.int64,
}  # fmt: skip
ARRAYS = ("offsets", *COLUMNS)
MANIFEST = "manifest.json"
_CATALOG = "catalog.parquet"
_USERS = "users.parquet"
_TABLES = (_CATALOG, _USERS)


@dataclass(frozen=True)
class SequenceStore:
    """A folder of arrays: user `u` has the rows `offsets[u]:offsets[u + 1]`, oldest first.

    The arrays are opened with `mmap_mode="r"`: training memory does not grow with the data, and
    pickling a store sends only its path and manifest.

    Attributes:
      path: the folder.
      manifest: schema version, source, counts and a SHA-256 per file.
    """

    path: Path
    manifest: dict[str, Any]

    def __repr__(self) -> str:
        return (
            f"SequenceStore({str(self.path)!r}: {self.num_users:,} users, "
            f"{int(self.manifest['items']):,} items, {self.num_interactions:,} interactions)"
        )

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
        """The catalog that the tokens belong to."""
        with _reading(self.path / _CATALOG):
            return Catalog.read(pa.BufferReader(self._tables[_CATALOG]))

    def user_ids(self) -> list[str]:
        """External user ids, in the order of the users in `offsets`."""
        with _reading(self.path / _USERS):
            table = pq.read_table(pa.BufferReader(self._tables[_USERS]))
            ids: list[str] = table["user_id"].to_pylist()
            return ids

    @cached_property
    def _tables(self) -> dict[str, pa.Buffer]:
        """The memory-mapped files of the tables, by name."""
        found = {}
        for name in _TABLES:
            with _reading(self.path / name) as file, pa.memory_map(os.fspath(file)) as mapped:
                found[name] = mapped.read_buffer()
        return found

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
        """Compare every file with its checksum, about a second per GB (60 million interactions).

        A file whose modification time has not changed since this process last compared it is not
        read again. All files are opened first, so that the ones in use are the ones that were
        compared, even if the store is replaced later.

        Raises:
          UserError: a file is missing, cannot be read or has changed.
        """
        for name in (*ARRAYS, "_tables"):
            getattr(self, name)
        for name, expected in self.manifest["checksums"].items():
            with _reading(self.path / name) as file:
                as_found = _checksum(file, file.stat().st_mtime_ns)
            if as_found != expected:
                raise UserError(
                    f"{file} does not match its checksum in {MANIFEST}; prepare the data again"
                )

    def _array(self, name: str) -> npt.NDArray[Any]:
        with _reading(self.path / f"{name}.npy") as file:
            mapped = np.load(file, mmap_mode="r", allow_pickle=False)
            return np.asarray(mapped)  # the same memory; a memmap is slow to index

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "manifest": self.manifest}

    @classmethod
    def open(cls, path: str | Path) -> SequenceStore:
        """Open a folder that `write_store` made.

        Raises:
          UserError: the folder holds no store, a store of another schema, or cannot be read.
        """
        path = Path(path)
        require_utf8(path)
        manifest_path = path / MANIFEST
        try:
            manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{path} holds no prepared data ({MANIFEST} is missing); make it with "
                "`bert4rec prepare SOURCE --output DIR`"
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot read {manifest_path}: {error.strerror}; change its permissions"
            ) from error
        except ValueError as error:
            raise UserError(f"cannot read {manifest_path} ({error}); prepare again") from None
        found = manifest.get("schema_version") if isinstance(manifest, dict) else None
        if isinstance(manifest, dict) and (kind := _other_kind(manifest)):
            raise UserError(
                f"{path} holds no prepared data, but {kind}; give a folder that `bert4rec prepare` "
                "made"
            )
        if found != SCHEMA_VERSION:
            raise UserError(
                f"{path} was prepared with schema {found}, this version reads {SCHEMA_VERSION}; "
                "prepare the data again"
            )
        return cls(path, manifest)


def _other_kind(manifest: Mapping[str, Any]) -> str:
    """What a folder with another manifest is; empty if that is not known."""
    if "bundle_schema" in manifest:
        return "a bundle"
    return "the content of items" if "blocks" in manifest else ""


def is_store(path: Path) -> bool:
    """Whether a folder holds prepared data."""
    return (path / MANIFEST).is_file()


def require_replaceable(path: Path) -> None:
    """Check that `write_store` may write to a path, before any work is done.

    Raises:
      UserError: `path` exists and is neither a store nor an empty folder, or has folders in it.
    """
    message = "exists and is not prepared data; choose another folder"
    # Other folders have a manifest too; that of a store may be damaged, or one of its files lost.
    earlier = is_store(path) and any((path / f"{name}.npy").is_file() for name in ARRAYS)
    refuse_other(path, earlier=earlier, message=message)


def write_store(
    interactions: Interactions,
    path: Path,
    *,
    titles: dict[str, tuple[str, str]],
    source: dict[str, Any],
) -> SequenceStore:
    """Write interactions as a store; the folder appears complete or not at all.

    Args:
      interactions: rows sorted by `Interactions.in_time_order`, at least one.
      path: the folder to make; it must be missing, empty or an earlier store (which is replaced).
      titles: external item id -> (title, genres separated by `|`); the title of a missing id is the
        id itself.
      source: where the data came from and how it was filtered; kept in the manifest.

    Raises:
      UserError: `path` exists and is neither a store nor an empty folder, or the disk is full.
    """
    require_replaceable(path)
    with whole_folder(path) as partial:
        fill_store(partial, [interactions], titles=titles, source=source)
    return SequenceStore.open(path.resolve())


def fill_store(
    folder: Path,
    pieces: Iterable[Interactions],
    *,
    titles: dict[str, tuple[str, str]],
    source: dict[str, Any],
) -> None:
    """Write the files of a store, with one piece at a time in memory.

    Args:
      folder: an existing folder to write to.
      pieces: rows sorted by `Interactions.in_time_order`, at least one, cut anywhere; all pieces
        have the same id tables.
      titles: see `write_store`.
      source: see `write_store`.
    """
    with ExitStack() as files:
        columns = {
            name: files.enter_context(ArrayFile(folder / f"{name}.npy", dtype))
            for name, dtype in COLUMNS.items()
        }
        for number, piece in enumerate(pieces):
            if number == 0:
                lengths = np.zeros(len(piece.user_ids), np.int64)
                token_of = np.zeros(len(piece.item_ids), np.int32)
            add_counts(piece.users, lengths)
            _give_tokens(piece.items, token_of)
            columns["tokens"].append(token_of[piece.items])
            columns["ratings"].append(piece.ratings)
            columns["timestamps"].append(piece.timestamps)
    users, codes = np.flatnonzero(lengths), np.flatnonzero(token_of)
    item_ids = piece.item_ids.take(pa.array(codes[np.argsort(token_of[codes])])).to_pylist()
    catalog = Catalog(
        tuple(item_ids),
        tuple(titles.get(item, (item, ""))[0] for item in item_ids),
        tuple(titles.get(item, (item, ""))[1] for item in item_ids),
    )
    _complete(
        folder,
        offsets=np.concatenate([[0], np.cumsum(lengths[users])]),
        catalog=catalog,
        user_ids=piece.user_ids.take(pa.array(users)),
        timed=piece.timed,
        source=source,
    )


def write_arranged(
    store: SequenceStore,
    path: Path,
    *,
    rows: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    users: npt.NDArray[np.int64],
    source: dict[str, Any],
) -> SequenceStore:
    """Write selected rows of a store as a new store with the same catalog.

    Args:
      store: where the rows come from.
      path: see `write_store`.
      rows: `[N]` row indices of `store`, user by user; a row may occur several times.
      offsets: `[U + 1]`: where the rows of each new user begin.
      users: `[U]`: index in `store` of each new user; a user may occur several times.
      source: see `write_store`.

    Raises:
      UserError: see `write_store`.
    """
    require_replaceable(path)
    columns: dict[str, npt.NDArray[Any]] = {
        "tokens": store.tokens,
        "ratings": store.ratings,
        "timestamps": store.timestamps,
    }
    with whole_folder(path) as partial:
        for name, values in columns.items():
            np.save(partial / f"{name}.npy", values[rows], allow_pickle=False)
        _complete(
            partial,
            offsets=offsets,
            catalog=store.catalog,
            user_ids=pa.array(store.user_ids()).take(pa.array(users)),
            timed=store.timed,
            source=source,
        )
    return SequenceStore.open(path.resolve())


def _complete(
    folder: Path,
    *,
    offsets: npt.NDArray[np.int64],
    catalog: Catalog,
    user_ids: pa.Array,
    timed: bool,
    source: dict[str, Any],
) -> None:
    """Write the manifest and the files of a store other than its columns."""
    np.save(folder / "offsets.npy", offsets, allow_pickle=False)
    catalog.write(folder / _CATALOG)
    pq.write_table(pa.table({"user_id": user_ids}), folder / _USERS)
    names = sorted([*_TABLES, *(f"{name}.npy" for name in ARRAYS)])
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "users": len(user_ids),
        "items": len(catalog),
        "interactions": int(offsets[-1]),
        "timed": timed,
        "catalog_fingerprint": catalog.fingerprint,
        "source": source,
        "checksums": {name: sha256(folder / name) for name in names},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _give_tokens(items: npt.NDArray[np.int32], token_of: npt.NDArray[np.int32]) -> None:
    """Assign the next tokens to the items without one (0), in order of appearance."""
    codes, first_rows = np.unique(items[token_of[items] == 0], return_index=True)
    given = np.count_nonzero(token_of)
    token_of[codes[np.argsort(first_rows)]] = FIRST_ITEM + given + np.arange(len(codes))


@contextmanager
def _reading(file: Path) -> Iterator[Path]:
    """Turn an error while reading a file of a store into a UserError."""
    try:
        yield file
    except FileNotFoundError:
        raise UserError(f"{file} is missing; prepare the data again") from None
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are subclasses
        raise UserError(f"cannot read {file} ({error}); prepare the data again") from error


@cache
def _checksum(file: Path, changed: int) -> str:
    """SHA-256 of a file, cached for as long as its modification time is `changed`."""
    return sha256(file)


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
