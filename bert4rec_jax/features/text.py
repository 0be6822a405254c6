"""Text: a movie's title, tagline and overview as text for a sentence embedding model."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.store import sha256
from bert4rec_jax.errors import UserError, first_line
from bert4rec_jax.features.movie import Movie

DEFAULT_MODEL = "google/embeddinggemma-300m"

_GEMMA = "embeddinggemma"
_GEMMA_PROMPT = "title: {title} | text: {text}"
_PLAIN_PROMPT = "{title}. {text}"
_NO_TITLE = "none"  # EmbeddingGemma's prompt uses this word
_PLACE = re.compile(r"\{(title|text)\}")
_DIGITS = 16  # of a digest, enough to tell revisions apart


class Embedder(Protocol):
    """A model from texts to vectors.

    With equal names and revisions, equal texts have equal vectors.
    """

    @property
    def name(self) -> str:
        """Name of the model; for a folder, without its path."""
        ...

    @property
    def revision(self) -> str:
        """Identifies the state of the model: it changes whenever the model does."""
        ...

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """`[n, D]`: the vectors of n texts."""
        ...


def default_prompt(model: str) -> str:
    """The prompt for a model: EmbeddingGemma's for documents, or just title and text."""
    return _GEMMA_PROMPT if _GEMMA in model.lower() else _PLAIN_PROMPT


def text_of(movie: Movie, prompt: str) -> str | None:
    """The text of a movie, filled into a prompt; None if nothing is known.

    `{title}` is the title, or "none"; `{text}` is the tagline, the overview and other texts, or
    else the title again.
    """
    body = " ".join(filter(None, (movie.tagline, movie.overview, *movie.texts))) or movie.title
    if not body:
        return None
    values = {"title": movie.title or _NO_TITLE, "text": body}
    return _PLACE.sub(lambda found: values[found[1]], prompt)


@dataclass(frozen=True)
class SentenceModel:
    """An embedding model of sentence-transformers.

    Attributes:
      name: the given name; for a folder, only the last part of its path.
      revision: the commit it was downloaded at, or for a folder a digest of its files.
      model: the `SentenceTransformer`.
      batch_size: texts per batch.
    """

    name: str
    revision: str
    model: Any
    batch_size: int

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """`[n, D]`: the vectors of n texts."""
        # The prompt is in the texts already; the model would add its own default on top of it.
        vectors: npt.NDArray[np.float32] = self.model.encode(
            list(texts), prompt="", batch_size=self.batch_size, show_progress_bar=False
        )
        return np.asarray(vectors, np.float32)


def load_model(name: str, *, revision: str | None = None, batch_size: int = 32) -> SentenceModel:
    """Load a model by its name on the Hugging Face hub, or from a folder.

    Raises:
      UserError: sentence-transformers is not installed, or the model cannot be loaded.
    """
    try:
        from sentence_transformers import (  # type: ignore[import-not-found, unused-ignore]
            SentenceTransformer,
        )
    except ImportError as error:
        raise UserError(
            f"text embeddings need sentence-transformers ({error}); install it with "
            "`pip install 'bert4rec-jax[text]'`, or give --embeddings computed elsewhere"
        ) from None
    try:
        model = SentenceTransformer(name, revision=revision)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise UserError(
            f"cannot load the text model {name!r} ({first_line(error)}); give a name on the "
            "Hugging Face hub or a folder; if the model's page asks for it, accept its licence "
            "there and log in with `hf auth login`"
        ) from error
    folder = Path(name)
    if folder.is_dir():
        return SentenceModel(folder.resolve().name, _digest(folder), model, batch_size)
    commit = getattr(getattr(model[0], "auto_model", None), "config", None)
    found = getattr(commit, "_commit_hash", None) or revision or "unknown"
    return SentenceModel(name, str(found), model, batch_size)


def _digest(folder: Path) -> str:
    """A digest of the files of a folder and their names."""
    digest = hashlib.sha256()
    files = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    for file in sorted(files):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{sha256(file)}\0".encode())
    return digest.hexdigest()[:_DIGITS]
