"""Cache: text embeddings that were computed earlier, so that an interrupted run can continue."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.delimited import shorten
from bert4rec_jax.errors import TemporaryError, UserError
from bert4rec_jax.features.text import Embedder
from bert4rec_jax.outputs import write_arrays

Progress = Callable[[int, int], None]
"""Called with the number of texts that have an embedding, and of all texts."""

SHARD = 512
"""Texts per file: at most this many are computed again after an interruption."""

_DIGITS = 16


def embed(
    texts: Mapping[str, str],
    embedder: Embedder,
    *,
    prompt: str,
    truncate_dim: int | None,
    folder: Path,
    progress: Progress = lambda done, total: None,
) -> npt.NDArray[np.float32]:
    """`[n, D]`: a unit vector per text, in their order; vectors in `folder` are not computed again.

    The key of a vector is made of its item, the SHA-256 of text, prompt and `truncate_dim`, and the
    model's name and revision. Every `SHARD` new vectors are written to a file, which appears
    complete or not at all.

    Args:
      texts: item id -> text, with the prompt around it; at least one.
      embedder: the model that computes the vectors.
      prompt: the prompt in the texts.
      truncate_dim: keep only this many leading dimensions (Matryoshka embeddings), then normalise
        to a unit vector again. None: all.
      folder: the cache folder, shared by all models.
      progress: see `Progress`.

    Raises:
      UserError: the model gives fewer than `truncate_dim` dimensions, or values that are not
        finite; or the cache cannot be written.
    """
    keys = [
        _digest(item_id, _digest(prompt, text, truncate_dim), embedder.name, embedder.revision)
        for item_id, text in texts.items()
    ]
    place = folder / _name(embedder, truncate_dim)
    known = _read(place, set(keys))
    missing = [at for at, key in enumerate(keys) if key not in known]
    progress(len(keys) - len(missing), len(keys))
    written = list(texts.values())
    for start in range(0, len(missing), SHARD):
        chosen = missing[start : start + SHARD]
        vectors = _vectors([written[at] for at in chosen], embedder, truncate_dim)
        shard = [keys[at] for at in chosen]
        _write(place, shard, vectors)
        known.update(zip(shard, vectors))
        progress(len(keys) - len(missing) + start + len(chosen), len(keys))
    return np.stack([known[key] for key in keys])


def _vectors(
    texts: Sequence[str], embedder: Embedder, truncate_dim: int | None
) -> npt.NDArray[np.float32]:
    vectors = np.asarray(embedder(texts), np.float32)
    if truncate_dim is not None and vectors.shape[1] < truncate_dim:
        raise UserError(
            f"{embedder.name} gives {vectors.shape[1]} numbers per text, and truncate_dim is "
            f"{truncate_dim}; expected at most {vectors.shape[1]}"
        )
    if not np.isfinite(vectors).all():
        row = int((~np.isfinite(vectors)).any(axis=1).argmax())
        raise UserError(
            f"{embedder.name} gives values that are not finite for the text {shorten(texts[row])}; "
            "use another model, or another precision"
        )
    cut = vectors[:, :truncate_dim]
    return cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _read(place: Path, wanted: set[str]) -> dict[str, npt.NDArray[np.float32]]:
    """The wanted vectors that are in the cache; files that cannot be read are ignored."""
    known: dict[str, npt.NDArray[np.float32]] = {}
    for file in sorted(place.glob("*.npz")):
        try:
            with np.load(file, allow_pickle=False) as arrays:
                pairs = zip(arrays["keys"].tolist(), arrays["vectors"])
                known.update((key, vector) for key, vector in pairs if key in wanted)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            continue
    return known


def _write(place: Path, keys: list[str], vectors: npt.NDArray[np.float32]) -> None:
    # Two processes with the same work write different files: their process ids are in the names.
    name = f"{_digest(*keys)[:_DIGITS]}-{os.getpid()}.npz"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TemporaryError(
            f"cannot write {place}: {error.strerror or error}; choose another --cache"
        ) from error
    write_arrays(place / name, {"keys": np.array(keys), "vectors": vectors})


def _name(embedder: Embedder, truncate_dim: int | None) -> str:
    """The name of the folder for one model at one revision and width."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", embedder.name).strip("-.")
    return f"{readable}-{_digest(embedder.name, embedder.revision, truncate_dim)[:_DIGITS]}"


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
