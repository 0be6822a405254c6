"""Encoding: encodes movies that are added to a catalog later exactly as the first ones were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.errors import Notify, UserError
from bert4rec_jax.features.blocks import NameBlock, VectorBlock
from bert4rec_jax.features.encoder import Encoder
from bert4rec_jax.features.options import TextOptions
from bert4rec_jax.features.sources import TEXT, KnownMovies, Sources


@dataclass(frozen=True)
class Encoding:
    """A frozen encoder, and the text model whose embeddings it was fitted on.

    Attributes:
      encoder: vocabularies, means and scales.
      text: model, revision, prompt and `truncate_dim` of embedded texts, or None.
      id_column: the column of a metadata table that matched the catalog's items, or None.
      separator: at which the lists of that table were cut; None if there was no table, or if an
        earlier version made the content.
    """

    encoder: Encoder
    text: Mapping[str, Any] | None
    id_column: str | None = field(default=None, compare=False)
    separator: str | None = field(default=None, compare=False)

    def as_before(self, sources: Sources, notify: Notify = lambda sentence: None) -> Sources:
        """Sources that are read as the first table was, where they do not say otherwise.

        Args:
          sources: where the content of more movies comes from.
          notify: called with a sentence if they name another separator than that of the first
            table.
        """
        before = self.separator
        if sources.metadata and before and sources.separator not in (None, before):
            notify(
                f"warning: lists are cut at {sources.separator!r}, and were cut at {before!r} when "
                "the content was made: a list that is cut wrongly is one unknown name; leave out "
                f"--separator if {sources.metadata.name} is separated as the first table was"
            )
        return replace(sources, separator=sources.separator or before, usual_column=self.id_column)

    def rows(self, known: KnownMovies) -> npt.NDArray[np.float32]:
        """`[n, F]`: the content of n movies; 0 for movies about which nothing is known.

        Raises:
          UserError: see `encode`.
        """
        rows = self.encode(known)
        return np.where(self.encoder.informed(rows)[:, None], rows, 0).astype(np.float32)

    def encode(self, known: KnownMovies) -> npt.NDArray[np.float32]:
        """`[n, F]`: the content of n movies, with missing parts marked in their columns.

        Raises:
          UserError: their texts were embedded, but not by the same model and revision with the same
            prompt and width; or see `Encoder.encode`.
        """
        if self.text is None and known.text is not None:
            raise UserError(
                f"texts were embedded with {known.text['model']}, and the content that the model "
                "was trained on has no embedded texts; leave out the text model"
            )
        if self.text is not None and known.text is not None and known.text != self.text:
            changed = ", ".join(
                f"{name} {value!r} (expected {self.text.get(name)!r})"
                for name, value in known.text.items()
                if value != self.text.get(name)
            )
            raise UserError(
                f"texts were embedded with another model than when the content was made: {changed};"
                " use the same model, revision, prompt and width: vectors of another are of "
                "another space"
            )
        movies = [movie.genres_among(self._genres) for movie in known.movies]
        return self.encoder.encode(movies, known.vectors)

    @cached_property
    def _genres(self) -> tuple[str, ...]:
        """Names of the genres that have a column of their own."""
        blocks = (block for block in self.encoder.blocks if isinstance(block, NameBlock))
        return next((block.vocabulary.names for block in blocks if block.name == "genres"), ())

    def text_dim(self) -> int | None:
        """Length of the embeddings of texts; None if there is no block of them."""
        blocks = (block for block in self.encoder.blocks if isinstance(block, VectorBlock))
        return next((len(block.mean) for block in blocks if block.name == TEXT), None)

    def text_options(self, model: str | None = None) -> TextOptions | None:
        """Options to embed texts as before; None if none were embedded and no `model` is given.

        Args:
          model: the model's folder, if it was loaded from one; None for its name on the hub.
        """
        if self.text is None:
            return None if model is None else TextOptions(model)
        return TextOptions(
            model or self.text["model"],
            None if model else self.text["revision"],
            self.text["prompt"],
            self.text["truncate_dim"],
        )

    def to_json(self) -> dict[str, Any]:
        """The encoding as values for JSON, from which `from_json` makes an equal one."""
        text = dict(self.text) if self.text is not None else None
        return {
            "encoder": self.encoder.to_json(),
            "text": text,
            "id_column": self.id_column,
            "separator": self.separator,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Encoding:
        """The encoding that `to_json` wrote.

        Raises:
          UserError: another version wrote it.
        """
        encoder = Encoder.from_json(values.get("encoder", {}))
        return cls.of(encoder, values)

    @classmethod
    def of(cls, encoder: Encoder, about: Mapping[str, Any]) -> Encoding:
        """An encoder with what a manifest, perhaps of an earlier version, says about its tables."""
        return cls(encoder, *map(about.get, ("text", "id_column", "separator")))
