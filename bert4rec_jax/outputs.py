"""Outputs: files and folders that are there whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from bert4rec_jax.errors import TemporaryError


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes its name when the block ends well.

    Until then it has a name of its own: two machines may write the same file at once, and the one
    that ends last stays.

    Raises:
      TemporaryError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}.{uuid4().hex[:8]}.partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise TemporaryError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes its place when the block ends well.

    An earlier folder there goes only once the new one stands. The caller has made sure that it may.

    Raises:
      TemporaryError: it cannot be written; nothing was changed.
    """
    path = path.resolve()
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        partial.mkdir(parents=True)
        yield partial
        _replace(partial, path)
    except OSError as error:
        raise TemporaryError(
            f"cannot write {path}: {error.strerror or error}; make room or choose another folder "
            "(nothing was changed)"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in missing:
            with suppress(OSError):  # it holds the folder
                parent.rmdir()


def _replace(new: Path, path: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    old = path.with_name(f".{path.name}.{uuid4().hex[:8]}.old")
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values as JSON.

    Raises:
      TemporaryError: it cannot be written.
    """
    with whole_file(path) as file:
        file.write((json.dumps(values, indent=2) + "\n").encode())


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write named arrays as a compressed `.npz`.

    Raises:
      TemporaryError: it cannot be written.
    """
    with whole_file(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
