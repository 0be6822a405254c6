"""BundleFiles: the files of one version of a bundle, readable even after it was replaced."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path

from bert4rec_jax.errors import UserError

EXPORT_AGAIN = "export it again with `bert4rec export RUN BUNDLE`"


class BundleFiles:
    """The verified files of a bundle. They stay open, so later reads see the same version.

    Args:
      folder: the bundle's folder.
      checksums: name -> SHA-256 in hexadecimal.

    Raises:
      UserError: a file is missing, cannot be read or does not match its checksum.
    """

    def __init__(self, folder: Path, checksums: Mapping[str, str]) -> None:
        self._folder, self._checksums = folder, checksums
        self._lock = threading.Lock()  # readers of a stream share its position
        with ExitStack() as opened:
            self._streams = {name: opened.enter_context(_open(folder / name)) for name in checksums}
            for name, stream in self._streams.items():
                self._check(name, hashlib.file_digest(stream, "sha256").hexdigest())
            weakref.finalize(self, opened.pop_all().close)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
          UserError: the file has changed since it was opened.
        """
        with self._lock:
            content = self.stream(name).read()
        self._check(name, hashlib.sha256(content).hexdigest())
        return content

    def stream(self, name: str) -> BufferedReader:
        """The open stream of a file, at its beginning, for reading a part of it."""
        stream = self._streams[name]
        stream.seek(0)
        return stream

    def _check(self, name: str, found: str) -> None:
        if found != self._checksums[name]:
            raise UserError(
                f"{self._folder / name} does not match its checksum in the manifest: it was "
                f"changed or cut off; copy the bundle again, or {EXPORT_AGAIN}"
            )


def _open(file: Path) -> BufferedReader:
    try:
        return file.open("rb")
    except FileNotFoundError:
        raise UserError(
            f"{file} is missing; copy the whole bundle again, or {EXPORT_AGAIN}"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot read {file}: {error.strerror}; change its permissions, or copy the whole "
            "bundle again"
        ) from error
