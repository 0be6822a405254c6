"""Shards: the output of a batch job, a folder of Parquet files that appears when all are done.

Until then, the folder is `OUT.partial`. Its files are written atomically, and each one records the
job that made it. `_manifest.json` begins with an underscore so that readers of such folders (Arrow,
Spark, DuckDB's `*.parquet`) ignore it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bert4rec_jax.errors import TemporaryError, UserError
from bert4rec_jax.locks import locked
from bert4rec_jax.outputs import require_utf8, whole_file, write_json

MANIFEST = "_manifest.json"
_KEY = b"bert4rec"  # in the Parquet metadata of a shard: what made it
_UNFINISHED = ".partial"


@dataclass(frozen=True)
class Shard:
    """A finished shard.

    Attributes:
      number: its index in the output, from 0.
      rows: number of requests that it answers.
      counts: counts of requests and ids; see `docs/serving.md`.
      by: the version of JAX and the kind of device that made it.
    """

    number: int
    rows: int
    counts: Counter[str]
    by: str


class Shards:
    """The shards of one job.

    Args:
      output: the folder that appears at the end.
      job: JSON values that determine every byte of the output; shards of another job are refused.

    Raises:
      UserError: `output` is not the name of a folder to make, such as `..`.
    """

    def __init__(self, output: Path, job: Mapping[str, Any]) -> None:
        require_name(output)
        self.output = output.resolve()  # keeps a link, and holds in processes that start elsewhere
        self._folder = self.output.with_name(self.output.name + _UNFINISHED)
        self._job = dict(job)

    def finished(self) -> dict[str, Any] | None:
        """The manifest, if the whole output of this job is there; None if there is work to do.

        Raises:
          UserError: `output` or the unfinished folder holds something else, or another job.
        """
        manifest = self._read(self.output) if self.output.exists() else {}
        if manifest.get("finished"):
            return manifest
        if self._folder.exists():
            self._read(self._folder)
        return None

    def require_whole(self, sizes: Sequence[int]) -> None:
        """Make sure that no shard of a finished output has been lost since.

        Args:
          sizes: requests per shard.

        Raises:
          UserError: a shard is missing or cannot be read.
        """
        for number, rows in enumerate(sizes):
            if self._made(self.output, number, rows) is None:
                raise UserError(
                    f"{self.output / _part(number)} is missing, damaged or unreadable; to have it "
                    f"made again, rename {self.output} to {self._folder.name} and run the same "
                    "command"
                )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder or continue an interrupted job's, and lock it while the context is open.

        Call `finished` again in this context: another process may have finished the job before.

        Raises:
          TemporaryError: it cannot be written, or another process has locked it.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TemporaryError(
                f"cannot write {self._folder}: {error.strerror or error}; change its permissions "
                "or choose another --output"
            ) from error
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self._folder))
            except (BlockingIOError, FileNotFoundError):  # or another process has just removed it
                raise TemporaryError(
                    f"another process is making {self.output}; run the same command again once it "
                    "has ended, or choose another output"
                ) from None
            except OSError:  # a file system without locks
                pass
            try:
                yield
            finally:
                with suppress(OSError):  # it holds shards, or was renamed to the output
                    self._folder.rmdir()

    def begin(self) -> None:
        """Write the first manifest, which says which job the folder belongs to.

        Raises:
          TemporaryError: it cannot be written.
        """
        if not (self._folder / MANIFEST).exists():
            write_json(self._folder / MANIFEST, {"job": self._job, "finished": False})

    def made(self, number: int, rows: int) -> Shard | None:
        """Shard `number` of `rows` requests; None if it is missing, damaged or of another job."""
        return self._made(self._folder, number, rows)

    def _made(self, folder: Path, number: int, rows: int) -> Shard | None:
        try:
            with pq.ParquetFile(folder / _part(number), page_checksum_verification=True) as file:
                for group in range(file.num_row_groups):  # all: old pages have no checksum
                    file.read_row_group(group)
                metadata = file.metadata
            found = json.loads(metadata.metadata[_KEY])
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
            return None
        if metadata.num_rows != rows or found["job"] != self._job:
            return None
        return Shard(number, rows, Counter(found["counts"]), found["by"])

    def write(self, made: Shard, tables: Sequence[pa.Table]) -> None:
        """Write one shard of one or more tables with the same columns, each a row group of its own.

        Readers cannot take more than 2 GiB of text in lists from one row group.

        Raises:
          TemporaryError: it cannot be written; finished shards stay.
        """
        described = json.dumps({"job": self._job, "counts": made.counts, "by": made.by})
        schema = tables[0].schema.with_metadata({_KEY: described.encode()})
        try:
            with (
                whole_file(self._folder / _part(made.number)) as file,
                pq.ParquetWriter(
                    file, schema, compression="zstd", write_page_checksum=True
                ) as writer,
            ):
                for table in tables:
                    writer.write_table(table)
        except TemporaryError as error:
            raise TemporaryError(
                f"{error}; make room and run the same command: finished shards stay"
            ) from error

    def discard(self) -> None:
        """Remove all shards that were made, and the first manifest."""
        for file in [*self._folder.glob("part-*.parquet"), self._folder / MANIFEST]:
            file.unlink(missing_ok=True)

    def finish(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """Write the final manifest, and rename the folder to the output.

        Raises:
          TemporaryError: it cannot be written.
        """
        manifest = {"job": self._job, "finished": True, **results}
        write_json(self._folder / MANIFEST, manifest)
        for left in self._folder.glob(f"*{_UNFINISHED}"):
            left.unlink(missing_ok=True)
        try:
            self._folder.rename(self.output)
        except OSError as error:
            raise TemporaryError(
                f"cannot rename {self._folder} to {self.output}: {error.strerror or error}"
            ) from error
        return manifest

    def _read(self, folder: Path) -> dict[str, Any]:
        """The manifest of a folder of this job; refuses any other, except an empty folder.

        A folder is empty too if a process was killed while it wrote the first manifest there.
        """
        file = folder / MANIFEST
        if folder.is_dir() and all(
            left.match(f"{MANIFEST}.*{_UNFINISHED}") for left in folder.iterdir()
        ):
            return {}
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            job = dict(manifest["job"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"{folder} exists and is no output of `bert4rec rank`; choose another output"
            ) from None
        different = [
            f"{name}: {job.get(name)!r} there, {self._job.get(name)!r} now"
            for name in sorted(job.keys() | self._job.keys())
            if job.get(name) != self._job.get(name)
        ]
        if different:
            listed = "\n  ".join(different)
            raise UserError(
                f"{folder} belongs to another job:\n  {listed}\nuse what it was made with to "
                "continue it, choose another output, or remove it"
            )
        return dict(manifest)


def require_name(output: Path) -> None:
    """Refuse what is not the name of a folder to make, such as `..`; raises `UserError`."""
    require_utf8(output.resolve())
    if output.name in ("", ".."):
        raise UserError(f"the output is {str(output)!r}; expected the name of a folder to make")


def _part(number: int) -> str:
    return f"part-{number:06d}.parquet"
