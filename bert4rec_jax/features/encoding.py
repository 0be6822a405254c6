"""Encoding: what makes the content of movies that come later, as it made that of the first ones."""

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
    """A frozen encoder, and where the embeddings of texts that it was fitted on came from.

    Attributes:
      encoder: vocabularies, means and scales.
      text: model, revision, prompt and `truncate_dim` of embedded texts, or None.
      id_column: the column by which the catalog's items were found in a table, or None.
    """

    encoder: Encoder
    text: Mapping[str, Any] | None
    id_column: str | None = field(default=None, compare=False)

    def rows(self, known: KnownMovies) -> npt.NDArray[np.float32]:
        """`[n, F]`: the content of n movies; 0 for those about which nothing is known.

        Raises:
          UserError: see `encode`.
        """
        rows = self.encode(known)
        return np.where(self.encoder.informed(rows)[:, None], rows, 0).astype(np.float32)

    def encode(self, known: KnownMovies) -> npt.NDArray[np.float32]:
        """`[n, F]`: the content of n movies, with what is missing marked.

        Raises:
          UserError: their texts were embedded by another model, at another revision, with another
            prompt or width; or see `Encoder.encode`.
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
        """Names of genres with a column of their own."""
        blocks = (block for block in self.encoder.blocks if isinstance(block, NameBlock))
        return next((block.vocabulary.names for block in blocks if block.name == "genres"), ())

    def text_options(self, model: str | None = None) -> TextOptions | None:
        """How to embed texts as before; None if none were embedded.

        Args:
          model: the folder of the model, where it was one; None for its name on the hub.
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
        """Plain values, from which `from_json` makes an equal encoding."""
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
