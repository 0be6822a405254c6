"""Bundle: a folder that holds a trained model for serving, opened and checked before use.

manifest.json         what it is, where it came from, checksums
params.safetensors    parameters and constants by path
catalog.parquet       item_id, title, genres, known; row i is token 2 + i
encoding.json         encodes the content of new items, if the model uses content
user_encoding.json    encodes user features, if the model uses them
NAME.stablehlo        a serialized `jax.export` function for each of FUNCTIONS

A pipeline is a folder with a manifest and two bundles, `retriever` and `ranker`.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from jax import export

from bert4rec_jax.checks import require_number, require_whole
from bert4rec_jax.data.catalog import FIRST_ITEM, Catalog
from bert4rec_jax.errors import TemporaryError, UserError, first_line
from bert4rec_jax.evaluation.lift import COLLECTION
from bert4rec_jax.features.user_encoding import UserEncoding
from bert4rec_jax.outputs import refuse_other, require_utf8
from bert4rec_jax.serving import weights
from bert4rec_jax.serving.bundle_files import EXPORT_AGAIN, BundleFiles

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
PARAMETERS = "params.safetensors"
CATALOG = "catalog.parquet"
ENCODING = "encoding.json"
USER_ENCODING = "user_encoding.json"
STAGES = "stages"  # in the manifest of a pipeline
STAGE_FOLDERS = ("retriever", "ranker")
FUNCTIONS = ("item_vectors", "encode", "score", "top_k", "attend")
# Entries of the manifest that answers depend on, besides the files.
_ANSWERS_DEPEND_ON = ("repeats", "thumbs", "max_length", "reads", "trained_until")
_ATTEMPTS, _PAUSE = 3, 0.2  # to open a bundle that is being replaced; seconds between attempts


class _ReplacedError(Exception):
    """A pipeline was replaced while it was opened: its stages may be of different versions."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle: all files are complete, and this version of JAX can read its functions.

    It can still be used, unchanged, after another bundle has replaced the one in the folder.

    Attributes:
      path: the folder.
      manifest: the content of `manifest.json`.
      files: all other files, of the same version.
      retriever: for a pipeline, the bundle that selects the candidates that this one ranks.
      candidates: for a pipeline, how many items the retriever selects.
      probes: for a pipeline, how many clusters of items the retriever searches; 0 for the whole
        catalog. See `clusters`.
      blend: for a pipeline, the weight at which retriever scores are added to ranker scores.
    """

    path: Path
    manifest: dict[str, Any]
    files: BundleFiles
    retriever: Bundle | None = None
    candidates: int = 0
    probes: int = 0
    blend: float = 0.0

    @classmethod
    def open(cls, path: Path, *, today: date | None = None) -> Bundle:
        """Open a folder that `bert4rec export` or `bert4rec pipeline` made.

        Args:
          path: the folder.
          today: the date that is compared with `readable_until` of the bundle; None for today.

        Raises:
          UserError: it is no bundle, of another schema, damaged, its functions cannot be read by
            this JAX, the parts of a pipeline do not fit together, or it was replaced during each
            attempt to open it (a `TemporaryError`).
        """
        for _ in range(_ATTEMPTS):
            manifest = _read_manifest(path)
            try:
                return cls._read(path, manifest, today or datetime.now(UTC).date())
            except _ReplacedError:
                pass
            except UserError:
                if _holds(path, manifest):
                    raise
            time.sleep(_PAUSE)
        raise TemporaryError(
            f"{path} was replaced each of the {_ATTEMPTS} times that it was opened; open it again "
            "once it stays as it is"
        )

    @classmethod
    def _read(cls, path: Path, manifest: dict[str, Any], today: date) -> Bundle:
        if STAGES in manifest:
            stages = (path / name for name in STAGE_FOLDERS)
            # Of a pipeline that links to bundles, messages name these.
            folders = [stage.resolve() if stage.is_symlink() else stage for stage in stages]
            retriever, ranker = (cls.open(folder, today=today) for folder in folders)
            found = [(part.path, part.manifest) for part in (retriever, ranker)]
            if not all(_holds(*each) for each in [(path, manifest), *found]):
                raise _ReplacedError
            return ranker.behind(retriever, **manifest[STAGES])
        _check_jax(path, manifest, today)
        return cls(path, manifest, BundleFiles(path, manifest["checksums"]))

    def behind(
        self, retriever: Bundle, candidates: int, probes: int = 0, blend: float = 0.0
    ) -> Bundle:
        """A pipeline with this bundle as its ranker.

        Raises:
          UserError: the two have different catalogs, only one repeats items (`data.repeats`), one
            is a pipeline itself, or a number is out of range; or see `require_vectors_alone`.
        """
        candidates = require_whole(candidates, "candidates")
        probes, blend = require_whole(probes, "probes"), require_number(blend, "blend")
        limits = (("candidates", candidates, 1), ("probes", probes, 0), ("blend", blend, 0))
        for name, value, least in limits:
            if not least <= value < math.inf:
                raise UserError(f"{name} is {value}; expected at least {least}")
        for part in (retriever, self):
            if part.retriever is not None:
                raise UserError(f"{part.path} is a ranker behind a retriever; give single bundles")
        ours, theirs = self.manifest, retriever.manifest
        if ours["catalog_fingerprint"] != theirs["catalog_fingerprint"]:
            raise UserError(
                f"the retriever {retriever.path} knows another catalog ({theirs['items']:,} items) "
                f"than the ranker {self.path} ({ours['items']:,} items); export both from runs on "
                "the same data, and add new items to both (`bert4rec add-items`)"
            )
        if retriever.repeats != self.repeats:
            kinds = ("without", "with")
            raise UserError(
                f"the retriever {retriever.path} was trained {kinds[retriever.repeats]} "
                f"--data.repeats, the ranker {self.path} {kinds[self.repeats]} it; train both with "
                "it, or neither"
            )
        if probes:
            retriever.require_vectors_alone()
        return replace(self, retriever=retriever, candidates=candidates, probes=probes, blend=blend)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that answers depend on: equal fingerprints, equal answers."""
        manifest = self.manifest
        parts = [manifest["checksums"], *(manifest.get(name) for name in _ANSWERS_DEPEND_ON)]
        if self.retriever is not None:
            parts += [self.retriever.fingerprint, self.candidates, self.probes, self.blend]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def require_vectors_alone(self) -> None:
        """Refuse to search clusters of item vectors if scores do not follow from vectors alone.

        Raises:
          UserError: covisitation is added to the scores.
        """
        names = weights.names(self.files.stream(PARAMETERS))
        if any(name.startswith(f"{COLLECTION}/") for name in names):
            raise UserError(
                f"{self.path} adds covisitation to its scores, and groups of items are found by "
                "vectors alone; look into all items (--probes 0), or export a retriever without it "
                "(train.py with --calibration.no-covisitation)"
            )

    @property
    def max_length(self) -> int:
        """Positions L of the model: it reads the last L - 1 items of a history."""
        return int(self.manifest["max_length"])

    @property
    def repeats(self) -> bool:
        """Whether lists may hold items of the history; see `data.repeats`."""
        return bool(self.manifest.get("repeats", False))  # missing in earlier versions

    @property
    def thumbs(self) -> tuple[float, float]:
        """The lowest ratings that mean thumbs up and two thumbs up; see `data.thumbs`."""
        up, two_up = self.manifest["thumbs"]
        return float(up), float(two_up)

    @property
    def reads_times(self) -> bool:
        """Whether the model reads the times of histories and requests; see `model.times`."""
        return bool(self.manifest["model"].get("times", False))

    @property
    def stages(self) -> tuple[Bundle, ...]:
        """The bundles with a model: this one, and before it the retriever of a pipeline."""
        return (self,) if self.retriever is None else (self.retriever, self)

    @property
    def asks_times(self) -> bool:
        """Whether this model reads times, or the retriever of a pipeline does."""
        return any(stage.reads_times for stage in self.stages)

    def require_times(self) -> None:
        """Refuse times for a model that does not read them.

        Raises:
          UserError: neither this model nor the retriever of a pipeline reads times.
        """
        if not self.asks_times:
            paths = " and ".join(str(stage.path) for stage in self.stages)
            raise UserError(
                f"the model in {paths} reads no times (train.py with --model.times makes one that "
                "does); leave out the times of requests and histories"
            )

    @property
    def trained_until(self) -> int:
        """Time of the last event trained on, in seconds since 1970.

        Of a pipeline whose ranker reads no times, that of its retriever.
        """
        return int(self._reader_of_times.manifest["trained_until"])

    @property
    def trained_from(self) -> int:
        """When the log that it was trained on begins, as `trained_until`; 0 if it is not known."""
        return int(self._reader_of_times.manifest.get("trained_from", 0))  # missing in earlier ones

    @property
    def _reader_of_times(self) -> Bundle:
        """Of a pipeline, the stage whose training data says when its requests are made."""
        return self if self.reads_times or self.retriever is None else self.retriever

    @cached_property
    def catalog(self) -> Catalog:
        """External ids, titles and genres."""
        return Catalog.read(pa.BufferReader(self.files.read(CATALOG)))

    @cached_property
    def known(self) -> npt.NDArray[np.bool_]:
        """`[V]`: items that can be listed: with a training event, or with content."""
        file = pa.BufferReader(self.files.read(CATALOG))
        column = pq.read_table(file, columns=["known"])["known"]
        known = np.zeros(self.catalog.num_rows, bool)
        known[FIRST_ITEM : self.catalog.num_tokens] = column.to_numpy()
        return known

    @cached_property
    def user_encoding(self) -> UserEncoding | None:
        """Encodes user features; None for a model that does not use them."""
        if USER_ENCODING not in self.manifest["checksums"]:
            return None
        return UserEncoding.from_json(json.loads(self.files.read(USER_ENCODING)))

    @property
    def user_encodings(self) -> tuple[UserEncoding, ...]:
        """The user encodings that exist, of this bundle and of a pipeline's retriever."""
        return tuple(stage.user_encoding for stage in self.stages if stage.user_encoding)

    def parameters(self) -> dict[str, npt.NDArray[Any]]:
        """The parameters by path, as they are stored; see `serving.weights`."""
        return weights.read(self.files.read(PARAMETERS))

    def has(self, name: str) -> bool:
        """Whether the bundle has this function of FUNCTIONS; an old bundle may lack it."""
        return name in self.manifest["functions"]

    def require(self, name: str) -> None:
        """Make sure that the bundle has this function of FUNCTIONS.

        Raises:
          UserError: the bundle was made before the function existed.
        """
        if not self.has(name):
            raise UserError(
                f"{self.path} has no function {name!r}: bert4rec-jax "
                f"{self.manifest['bert4rec_jax']} made it without; {EXPORT_AGAIN}"
            )

    def function(self, name: str) -> export.Exported:
        """Deserialize one of FUNCTIONS.

        Raises:
          UserError: this JAX cannot read it, or the bundle was made before the function existed.
        """
        self.require(name)
        file = function_file(name)
        content = bytearray(self.files.read(file))
        try:
            return export.deserialize(content)
        except Exception as error:  # JAX may raise anything for bytes that it cannot read
            raise UserError(
                f"{self.path / file} was exported by JAX {self.manifest['jax']} and cannot be read "
                f"by JAX {jax.__version__} ({first_line(error)}); {EXPORT_AGAIN}"
            ) from error


def is_bundle(path: Path) -> bool:
    """Whether a folder holds a bundle of any schema."""
    try:
        _read_json(path / MANIFEST)["bundle_schema"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def require_replaceable(path: Path) -> None:
    """Refuse to write a bundle over anything but a bundle or an empty folder.

    Raises:
      UserError: `path` holds something else, or a folder besides a bundle.
    """
    message = "exists and is no bundle; choose another folder"
    refuse_other(path, earlier=is_bundle(path), message=message, folders=STAGE_FOLDERS)


def function_file(name: str) -> str:
    """The file name of one of FUNCTIONS."""
    return f"{name}.stablehlo"


def _read_manifest(path: Path) -> dict[str, Any]:
    require_utf8(path)
    file = path / MANIFEST
    try:
        manifest = _read_json(file)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{path} is no bundle ({MANIFEST} is missing); make one with "
            "`bert4rec export RUN BUNDLE`"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); {EXPORT_AGAIN}") from None
    schema = manifest.get("bundle_schema") if isinstance(manifest, dict) else None
    if schema is None:
        raise UserError(
            f"{path} is no bundle ({MANIFEST} has no bundle_schema); make one with "
            "`bert4rec export RUN BUNDLE`"
        )
    if schema != SCHEMA_VERSION:
        raise UserError(
            f"{path} is a bundle of schema {schema}, and this version reads {SCHEMA_VERSION}; "
            f"install the version that wrote it ({manifest.get('bert4rec_jax')}), or {EXPORT_AGAIN}"
        )
    return manifest


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _holds(path: Path, manifest: dict[str, Any]) -> bool:
    """Whether a folder still holds the bundle of this manifest."""
    try:
        return _read_manifest(path) == manifest
    except UserError:  # the old bundle is gone, and the new one is not there yet
        return False


def _check_jax(path: Path, manifest: dict[str, Any], today: date) -> None:
    """Refuse an export that this version of JAX does not promise to read.

    JAX always reads exports of the same version, those of older versions for six months, and those
    of newer ones only for a short time:
    https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees.

    Raises:
      UserError: JAX here is an older minor version, or a newer one after `readable_until`.
    """
    made, here = manifest["jax"], jax.__version__
    if _minor(made) > _minor(here):
        raise UserError(
            f"{path} was exported by JAX {made}, and this is JAX {here}, which may not read it; "
            f"install JAX {made} or later, or {EXPORT_AGAIN} under JAX {here}"
        )
    until = date.fromisoformat(manifest["readable_until"])
    if today > until and _minor(made) < _minor(here):
        raise UserError(
            f"{path} was exported by JAX {made} and could be read by later versions until {until}; "
            f"this is JAX {here}: {EXPORT_AGAIN}, or install JAX {made}"
        )


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
