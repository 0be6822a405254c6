"""Bundle: a folder that holds a trained model for serving, and whether it can be read here.

manifest.json         what it is, where it came from, checksums
params.safetensors    parameters by path
catalog.parquet       item_id, title, genres, known; row i is token 2 + i
encoding.json         what makes the content of new items, where the model knows content
user_encoding.json    what makes rows of what is known of users, where the model reads it
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
from io import BytesIO
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from jax import export

from bert4rec_jax.data.catalog import FIRST_ITEM, Catalog
from bert4rec_jax.errors import TemporaryError, UserError
from bert4rec_jax.evaluation.lift import COLLECTION
from bert4rec_jax.features.user_encoding import UserEncoding
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
_ATTEMPTS, _PAUSE = 3, 0.2  # to open a bundle while it is replaced; seconds between them


class _ReplacedError(Exception):
    """The stages of a pipeline may be of different versions."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle: all files are whole, and this version of JAX can read its functions.

    It stays what it was when another bundle takes its place in the folder.

    Attributes:
      path: the folder.
      manifest: the content of `manifest.json`.
      files: the others, of the same version.
      retriever: of a pipeline, the bundle that finds what this one orders.
      candidates: of a pipeline, how many items that one hands on.
      probes: of a pipeline, groups of items that are looked into; 0 for all items. See `clusters`.
      blend: of a pipeline, what the retriever's scores weigh beside the ranker's.
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
          today: the day for which to check whether its functions can be read; None for today.

        Raises:
          UserError: it is no bundle, of another schema, damaged, its functions cannot be read by
            this JAX, the parts of a pipeline do not fit together, or it is being replaced time and
            again.
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
            retriever, ranker = (cls.open(path / name, today=today) for name in STAGE_FOLDERS)
            found = [(part.path, part.manifest) for part in (retriever, ranker)]
            if not all(_holds(*each) for each in [(path, manifest), *found]):
                raise _ReplacedError
            return ranker.behind(retriever, **manifest[STAGES])
        _check_jax(path, manifest, today)
        return cls(path, manifest, BundleFiles(path, manifest["checksums"]))

    def behind(
        self, retriever: Bundle, candidates: int, probes: int = 0, blend: float = 0.0
    ) -> Bundle:
        """This bundle as the ranker of a pipeline.

        Raises:
          UserError: the two have different catalogs, one is a pipeline itself, or the retriever
            would hand on nothing, or a number is impossible.
        """
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
                "the same data"
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
        """SHA-256 over the checksums of all files: equal fingerprints, equal answers."""
        parts = self.manifest["checksums"]
        if self.retriever is not None:
            parts = [parts, self.retriever.fingerprint, self.candidates, self.probes, self.blend]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def require_vectors_alone(self) -> None:
        """Refuse to look for items in groups of near vectors where vectors are not all.

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
        return bool(self.manifest.get("repeats", False))  # earlier versions do not say

    @property
    def thumbs(self) -> tuple[float, float]:
        """Ratings from which a thumb is up and two up; see `data.thumbs`."""
        up, two_up = self.manifest["thumbs"]
        return float(up), float(two_up)

    @cached_property
    def catalog(self) -> Catalog:
        """External ids, titles and genres."""
        return Catalog.read(BytesIO(self.files.read(CATALOG)))

    @cached_property
    def known(self) -> npt.NDArray[np.bool_]:
        """`[V]`: items that can be listed: with a training event, or with content."""
        column = pq.read_table(BytesIO(self.files.read(CATALOG)), columns=["known"])["known"]
        known = np.zeros(self.catalog.num_rows, bool)
        known[FIRST_ITEM : self.catalog.num_tokens] = column.to_numpy()
        return known

    @cached_property
    def user_encoding(self) -> UserEncoding | None:
        """What makes rows of what is known of users; None for a model that does not read it."""
        if USER_ENCODING not in self.manifest["checksums"]:
            return None
        return UserEncoding.from_json(json.loads(self.files.read(USER_ENCODING)))

    @property
    def user_encodings(self) -> tuple[UserEncoding, ...]:
        """Those of this bundle and, of a pipeline, of its retriever."""
        own = (self.user_encoding,) if self.user_encoding else ()
        return own if self.retriever is None else (*own, *self.retriever.user_encodings)

    def parameters(self) -> dict[str, npt.NDArray[Any]]:
        """The parameters by path, as they are stored; see `serving.weights`."""
        return weights.read(self.files.read(PARAMETERS))

    def has(self, name: str) -> bool:
        """Whether there is this one of FUNCTIONS; a bundle may be older than it."""
        return name in self.manifest["functions"]

    def require(self, name: str) -> None:
        """Make sure that there is one of FUNCTIONS.

        Raises:
          UserError: the bundle was made before there was one.
        """
        if not self.has(name):
            raise UserError(
                f"{self.path} has no function {name!r}: bert4rec-jax "
                f"{self.manifest['bert4rec_jax']} made it without; {EXPORT_AGAIN}"
            )

    def function(self, name: str) -> export.Exported:
        """One of FUNCTIONS.

        Raises:
          UserError: this JAX cannot read it, or the bundle was made before there was one.
        """
        self.require(name)
        file = function_file(name)
        content = bytearray(self.files.read(file))
        try:
            return export.deserialize(content)
        except Exception as error:  # whatever JAX raises for bytes that it does not understand
            raise UserError(
                f"{self.path / file} was exported by JAX {self.manifest['jax']} and cannot be read "
                f"by JAX {jax.__version__} ({str(error).splitlines()[0][:200]}); {EXPORT_AGAIN}"
            ) from error


def is_bundle(path: Path) -> bool:
    """Whether a folder holds a bundle of any schema."""
    try:
        _read_json(path / MANIFEST)["bundle_schema"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def require_replaceable(path: Path) -> None:
    """Refuse to write a bundle where something else is.

    Raises:
      UserError: names the place.
    """
    if path.exists() and not is_bundle(path) and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists and is no bundle; choose another folder")


def function_file(name: str) -> str:
    """The file of one of FUNCTIONS."""
    return f"{name}.stablehlo"


def _read_manifest(path: Path) -> dict[str, Any]:
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
    except UserError:  # between an old bundle and a new one
        return False


def _check_jax(path: Path, manifest: dict[str, Any], today: date) -> None:
    """Whether JAX promises to read this export.

    It reads exports of the same version always, of older ones for six months, of newer ones not for
    long: https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees.
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
