"""Sources: gather what is known about a catalog's items from tables, embeddings and texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert4rec_jax.checks import require_path
from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.data.download import default_cache
from bert4rec_jax.data.store import sha256
from bert4rec_jax.errors import Notify, UserError
from bert4rec_jax.features.cache import Progress, embed
from bert4rec_jax.features.embeddings import read_embeddings
from bert4rec_jax.features.match import read_id_map
from bert4rec_jax.features.metadata import Metadata, read_metadata
from bert4rec_jax.features.movie import Movie, movies_of
from bert4rec_jax.features.options import NO_OTHERS, OtherColumns, TextOptions
from bert4rec_jax.features.text import Embedder, default_prompt, load_model, text_of
from bert4rec_jax.features.vectors import Vectors

TEXT = "text"
EMBEDDINGS = "embeddings"
SEPARATOR = "|"
"""Separator of lists where none is given."""


@dataclass(frozen=True)
class Sources:
    """Where content comes from, besides the catalog's own titles, years and genres.

    Attributes:
      metadata: a table of movies, see `metadata.read_metadata`.
      id_column: its column of ids. None: the one that matches the most items.
      id_map: a file with two columns, catalog id and id in the metadata.
      separator: between the names of a list in one text. None: `SEPARATOR`.
      embeddings: a file of precomputed embeddings, see `embeddings.read_embeddings`.
      usual_column: the column of ids of an earlier table, see `metadata.read_metadata`.
    """

    metadata: Path | None = None
    id_column: str | None = None
    id_map: Path | None = None
    separator: str | None = None
    embeddings: Path | None = None
    usual_column: str | None = None

    def __post_init__(self) -> None:
        for name in ("metadata", "id_map", "embeddings"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, require_path(path, name))
        if self.id_map and not (self.metadata or self.embeddings):
            raise UserError("an id map needs metadata or embeddings with the ids it leads to")
        if self.id_column and not self.metadata:
            raise UserError("the id column is one of the table of metadata; give that too")
        if self.separator == "":
            raise UserError("the separator is empty; expected a sign such as '|'")

    @property
    def separated_by(self) -> str:
        """The separator that lists are cut at."""
        return self.separator or SEPARATOR

    def files(self) -> list[dict[str, str]]:
        """Role, name (without path) and SHA-256 of each file."""
        roles = {"metadata": self.metadata, "id_map": self.id_map, EMBEDDINGS: self.embeddings}
        return [
            {"role": role, "name": file.name, "sha256": sha256(file)}
            for role, file in roles.items()
            if file
        ]


NO_SOURCES = Sources()


@dataclass(frozen=True)
class KnownMovies:
    """What is known about n items, in the catalog's order; the input of `Encoding.encode`.

    Attributes:
      movies: one per item.
      vectors: block -> embeddings of the n items.
      metadata: the table that was read, if any.
      text: model, revision, prompt and `truncate_dim` of the embedded texts, if any.
    """

    movies: list[Movie]
    vectors: dict[str, Vectors]
    metadata: Metadata | None
    text: dict[str, Any] | None


def gather(
    catalog: Catalog,
    sources: Sources,
    *,
    others: OtherColumns = NO_OTHERS,
    text: TextOptions | None = None,
    text_dim: int | None = None,
    embedder: Embedder | None = None,
    cache: Path | None = None,
    progress: Progress = lambda done, total: None,
    notify: Notify = lambda sentence: None,
) -> KnownMovies:
    """Gather what is known about the items of a catalog.

    If the metadata has no title, year or genres for an item, those of the catalog are used.

    Args:
      catalog: the items.
      sources: see `Sources`.
      others: columns of the metadata to read besides the movie columns.
      text: how to embed texts. None: do not embed any.
      text_dim: length of the embeddings, if it is known: then all items may be without a text.
      embedder: embeds them instead of `text.model`.
      cache: folder of embeddings computed earlier. None: `content` in `download.default_cache()`.
      progress: called with the number of texts that have an embedding, and of all texts.
      notify: called with a sentence the user should see.

    Raises:
      UserError: a source cannot be read, or is not about these items.
    """
    id_map = read_id_map(sources.id_map, catalog) if sources.id_map else None
    metadata = None
    movies = movies_of(catalog)
    if sources.metadata:
        metadata = read_metadata(
            sources.metadata,
            catalog,
            id_column=sources.id_column,
            usual_column=sources.usual_column,
            id_map=id_map,
            separator=sources.separated_by,
            others=others,
            notify=notify,
        )
        movies = [movie.or_else(own) for movie, own in zip(metadata.movies, movies)]
    vectors: dict[str, Vectors] = {}
    described: dict[str, Any] | None = None
    if sources.embeddings:  # read first, so that an error there shows before a model runs
        vectors[EMBEDDINGS] = read_embeddings(sources.embeddings, catalog, id_map=id_map)
    if text:
        model = embedder or load_model(
            text.model, revision=text.revision, batch_size=text.batch_size
        )
        described = {
            "model": model.name,
            "revision": model.revision,
            "prompt": text.prompt or default_prompt(model.name),
            "truncate_dim": text.truncate_dim,
        }
        folder = cache or default_cache() / "content"
        vectors[TEXT] = _embedded(
            catalog,
            movies,
            model,
            prompt=described["prompt"],
            truncate_dim=text.truncate_dim,
            dim=text_dim,
            folder=folder,
            progress=progress,
        )
    return KnownMovies(movies, vectors, metadata, described)


def _embedded(
    catalog: Catalog,
    movies: list[Movie],
    embedder: Embedder,
    *,
    prompt: str,
    truncate_dim: int | None,
    dim: int | None,
    folder: Path,
    progress: Progress,
) -> Vectors:
    """Embeddings of the movies of which at least a title or another text is known.

    `dim` is their length, if it is known.
    """
    texts = {
        item_id: text
        for item_id, movie in zip(catalog.item_ids, movies)
        if (text := text_of(movie, prompt)) is not None
    }
    if not texts and dim is not None:
        return Vectors(np.zeros((len(catalog), dim), np.float32), np.zeros(len(catalog), bool))
    if not texts:
        raise UserError(
            "no item has a title or an overview to embed; give a table of them with --metadata"
        )
    vectors = embed(
        texts,
        embedder,
        prompt=prompt,
        truncate_dim=truncate_dim,
        folder=folder,
        progress=progress,
    )
    present = np.array([item_id in texts for item_id in catalog.item_ids])
    values = np.zeros((len(catalog), vectors.shape[1]), np.float32)
    values[present] = vectors
    return Vectors(values, present)
