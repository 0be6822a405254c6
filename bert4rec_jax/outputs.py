"""Outputs: write files and folders so that they appear complete or not at all."""

from __future__ import annotations

import ctypes
import errno
import glob
import json
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from bert4rec_jax.errors import TemporaryError, UserError
from bert4rec_jax.locks import locked

_PARTIAL, _OLD = ".partial", ".old"
_CUT_OFF = re.compile(r"\d+ requested and \d+ written")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # Linux's fcntl.h and fs.h


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing, which gets its name when the block ends without an error.

    Until then it has a unique temporary name: two machines may write the same file at once, and the
    one that ends last wins. A link to a file stays, and the file is replaced.

    Raises:
      UserError: the path leads through a file or a folder that is not there, or is that of a pipe
        or a device.
      TemporaryError: the file cannot be written for another reason.
    """
    target = path.resolve()
    partial = target.with_name(f"{target.name}.{uuid4().hex[:8]}.partial")
    try:
        _refuse_device(path)
        with partial.open("wb") as file:
            yield file
        partial.replace(target)
    except OSError as error:
        raise _kind(error)(f"cannot write {path}: {_reason(error)}") from error
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Make a folder to fill, which moves to `path` when the block ends without an error.

    An earlier folder at `path` is removed only once the new one is in place; the caller has checked
    that it may be replaced. Leftovers of killed processes are removed, or moved back to `path` if
    nothing else is there.

    Raises:
      UserError: the path leads through a file, or is not UTF-8.
      TemporaryError: the folder cannot be written for another reason; nothing was changed.
    """
    path = path.resolve()
    with scratch_folder(path) as partial:
        yield partial
        _replace(partial, path)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Make a folder beside `path`, for work on what is written there, and remove it in the end.

    Leftovers of killed processes are removed as by `whole_folder`, which raises the same errors.
    """
    path = path.resolve()
    require_utf8(path)
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}{_PARTIAL}")
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        with ExitStack() as held:
            _clear(path)
            partial.mkdir(parents=True)
            with suppress(OSError):  # without locks, no process clears leftovers
                held.enter_context(locked(partial))
            yield partial
    except OSError as error:
        way_out = "choose" if _kind(error) is UserError else "make room or choose"
        raise _kind(error)(
            f"cannot write {path}: {_reason(error)}; {way_out} another folder (nothing was changed)"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in missing:
            with suppress(OSError):  # not empty if the new folder is in it
                parent.rmdir()


def require_utf8(path: Path) -> None:
    """Refuse a path that Arrow and Orbax cannot open, as they take UTF-8 alone.

    Raises:
      UserError: the path has bytes of another encoding.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"the path {os.fsencode(path)!r} is not UTF-8 text, which Arrow and Orbax need; "
            "rename the file or the folder, or choose another"
        ) from None


def refuse_other(path: Path, *, earlier: bool, message: str, folders: Collection[str] = ()) -> None:
    """Refuse to write a folder over anything but an earlier one of its kind or an empty folder.

    An earlier one is removed with all that is in it, so it may not hold folders of other commands.

    Args:
      path: the folder to write.
      earlier: whether `path` holds what is to be written there.
      message: what to say of `path` if it holds something else.
      folders: names of folders that an earlier one of its kind has.

    Raises:
      UserError: it does.
    """
    if not path.exists():
        return
    if not earlier and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} {message}")
    others = sorted(x.name for x in path.iterdir() if x.is_dir() and x.name not in folders)
    if others:
        raise UserError(
            f"{path} would be replaced, and the folder {others[0]!r} in it would be lost: move "
            "that to another place, or choose another folder to write"
        )


def require_folder_of(path: Path) -> None:
    """Refuse a file whose folder is not there, before the work whose result it is to hold.

    Raises:
      UserError: it is not, or `path` is a folder itself, a pipe or a device.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file to write")
    _refuse_device(path)
    if not path.resolve().parent.is_dir():
        raise UserError(f"{path.parent} is no folder to write {path.name} to; make it first")


def _refuse_device(path: Path) -> None:
    """Refuse what a file would take the place of, such as `/dev/null`; raises `UserError`."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(
            f"{path} is no regular file, and a file would take its place; give the name of a file "
            "to write"
        )


def _kind(error: OSError) -> type[UserError]:
    """What to report an error of writing as: trying again helps only if the path is right."""
    wrong_path = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
    return UserError if error.errno in wrong_path else TemporaryError


def _reason(error: OSError) -> str:
    if isinstance(error, shutil.Error):  # of each file that could not be copied
        return str(error.args[0][0][-1])
    if error.errno is None and _CUT_OFF.fullmatch(str(error)):
        return os.strerror(errno.ENOSPC)  # an array that NumPy could write only in part
    return error.strerror or str(error)


def _clear(path: Path) -> None:
    """Move back or remove what processes that are dead by now left beside `path`."""
    for kind in (_OLD, _PARTIAL):
        for left in path.parent.glob(f".{glob.escape(path.name)}.????????{kind}"):
            with suppress(OSError), locked(left):
                if kind == _OLD and not path.exists():
                    left.rename(path)
                else:
                    shutil.rmtree(left)


def _replace(new: Path, path: Path) -> None:
    """Move the folder `new` to `path`.

    An earlier folder at `path` is removed, or is at `new` afterwards for the caller to remove.
    """
    if not path.exists():
        new.rename(path)
    elif not _exchange(new, path):
        old = new.with_suffix(_OLD)
        path.rename(old)
        try:
            new.rename(path)
        except BaseException:
            old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders atomically; returns False, with nothing done, if the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    places = _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other)
    return rename is not None and rename(*places, _RENAME_EXCHANGE) == 0


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values as JSON.

    Raises:
      UserError: see `whole_file`.
    """
    with whole_file(path) as file:
        file.write((json.dumps(values, indent=2) + "\n").encode())


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write named arrays as a compressed `.npz`.

    Raises:
      UserError: see `whole_file`.
    """
    with whole_file(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
