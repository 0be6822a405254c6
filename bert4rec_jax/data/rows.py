"""Rows on disk: interactions as columns that grow piece by piece and are read by slices."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bert4rec_jax.data.interactions import Interactions

DTYPES: dict[str, npt.DTypeLike] = {
    "users": np.int32,
    "items": np.int32,
    "timestamps": np.int64,
    "ratings": np.float32,
}
_ZEROS = 1 << 20  # zeros that are written at once


class ArrayFile:
    """A one-dimensional `.npy` file that grows at its end; once closed, equal to `np.save`'s."""

    def __init__(self, path: Path, dtype: npt.DTypeLike) -> None:
        """Create an empty file."""
        self._path = path
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._stream = path.open("wb")
        self._write_header()
        self._start = self._stream.tell()

    def __len__(self) -> int:
        return self._length

    def append(self, values: npt.NDArray[Any]) -> None:
        """Append values."""
        self._stream.write(np.ascontiguousarray(values, self._dtype).data)
        self._length += len(values)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read a copy of `start : stop`; a memory map would count as memory of the process."""
        self._stream.flush()
        offset = self._start + start * self._dtype.itemsize
        return np.fromfile(self._path, self._dtype, count=stop - start, offset=offset)

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.seek(0)
        self._write_header()  # NumPy pads the header, so a longer shape fits
        self._stream.close()

    def _write_header(self) -> None:
        np.lib.format.write_array_header_1_0(
            self._stream,
            {"descr": self._dtype.str, "fortran_order": False, "shape": (self._length,)},
        )


class Rows:
    """Interactions on disk, which are deleted at the end of the `with` block.

    They take 20 bytes each, or 24 if a time has a fraction of a second.

    The id tables stay in memory; those of the last piece hold the ids of all rows.
    """

    def __init__(self, folder: Path) -> None:
        """Start without rows, in a folder that is created here."""
        folder.mkdir()
        self._folder = folder
        self._files = ExitStack()
        self._columns = {name: self._column_file(name, dtype) for name, dtype in DTYPES.items()}
        self._ids = (pa.array([], pa.string()), pa.array([], pa.string()))
        self._timed = True

    def __len__(self) -> int:
        return len(self._columns["users"])

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of users and of items in the id tables."""
        return len(self._ids[0]), len(self._ids[1])

    def append(self, piece: Interactions) -> None:
        """Append rows; their codes must mean the same in the id tables of every later piece."""
        if piece.fractions is not None and "fractions" not in self._columns:
            self._columns["fractions"] = self._column_file("fractions", np.int32)
            for start, stop in self._slices(_ZEROS):
                self._columns["fractions"].append(np.zeros(stop - start, np.int32))
        for name, column in self._columns.items():
            values = getattr(piece, name)
            column.append(np.zeros(len(piece), np.int32) if values is None else values)
        self._ids, self._timed = (piece.user_ids, piece.item_ids), piece.timed

    def column(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows `start : stop` of one column."""
        return self._columns[name].read(start, stop)

    def read(self, *slices: tuple[int, int]) -> Interactions:
        """The rows of the given slices (start, stop), concatenated."""
        columns = {
            name: np.concatenate([self.column(name, *each) for each in slices])
            for name in self._columns
        }
        return Interactions(
            **columns, user_ids=self._ids[0], item_ids=self._ids[1], timed=self._timed
        )

    def pieces(self, rows: int) -> Iterator[Interactions]:
        """All rows, in pieces of `rows` rows."""
        return (self.read(each) for each in self._slices(rows))

    def pairs(self, rows: int) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
        """The users and items of all rows, in pieces of `rows` rows."""
        return ((self.column("users", *s), self.column("items", *s)) for s in self._slices(rows))

    def _column_file(self, name: str, dtype: npt.DTypeLike) -> ArrayFile:
        return self._files.enter_context(ArrayFile(self._folder / f"{name}.npy", dtype))

    def _slices(self, rows: int) -> list[tuple[int, int]]:
        return [(a, min(a + rows, len(self))) for a in range(0, len(self), rows)]

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *error: Any) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._files.__exit__(*error)
