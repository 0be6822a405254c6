"""Encoding: encodes movies that are added to a catalog later exactly as the first ones were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.errors import UserError
from bert4rec_jax.features.blocks import NameBlock
from bert4rec_jax.features.encoder import Encoder
from bert4rec_jax.features.options import TextOptions
from bert4rec_jax.features.sources import KnownMovies


@dataclass(frozen=True)
class Encoding:
    """A frozen encoder, and the text model whose embeddings it was fitted on.

    Attributes:
      encoder: vocabularies, means and scales.
      text: model, revision, prompt and `truncate_dim` of embedded texts, or None.
      id_column: the column of a metadata table that matched the catalog's items, or None.
    """

    encoder: Encoder
    text: Mapping[str, Any] | None
    id_column: str | None = field(default=None, compare=False)

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
        return {"encoder": self.encoder.to_json(), "text": text, "id_column": self.id_column}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Encoding:
        """The encoding that `to_json` wrote.

        Raises:
          UserError: another version wrote it.
        """
        encoder = Encoder.from_json(values.get("encoder", {}))
        return cls(encoder, values.get("text"), values.get("id_column"))
