"""Options: which metadata become columns, and how many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from bert4rec_jax.errors import UserError
from bert4rec_jax.features.tmdb import COLUMNS

BlockName = Literal["genres", "language", "keywords", "cast", "crew", "companies", "numbers"]
BLOCKS: tuple[BlockName, ...] = get_args(BlockName)
USUAL: tuple[BlockName, ...] = ("genres", "language", "companies", "numbers")
"""The blocks that say most about movies without interactions. A model memorises the others."""

_TAKEN = (*BLOCKS, "released", "leaky", "text", "embeddings", "other numbers")
_TOP_OF_SHORT_LISTS = 64
_TOP_OF_OTHERS = 256


@dataclass(frozen=True)
class OtherColumns:
    """Columns of a table besides the movie columns, such as brands and prices in a shop.

    Attributes:
      names: columns of categories: text, a whole number or a list of these.
      numbers: columns of finite numbers.
      texts: columns of text to embed, after taglines and overviews.
    """

    names: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self:
            if list(self).count(name) > 1:
                raise UserError(f"the column {name!r} is named twice; expected each once")
            if name in COLUMNS:
                raise UserError(
                    f"the column {name!r} is one of movies, and read as such; leave it out here: "
                    f"--blocks, --text or --leaky-columns choose among {', '.join(COLUMNS)}"
                )
            if name in _TAKEN and name not in self.texts:
                raise UserError(
                    f"the column {name!r} is called as a block is; rename it in the table (blocks "
                    f"are {', '.join(_TAKEN)})"
                )

    def __iter__(self) -> Iterator[str]:
        return iter((*self.names, *self.numbers, *self.texts))


@dataclass(frozen=True)
class Options:
    """How an encoder is fitted.

    Attributes:
      blocks: blocks of the metadata to make.
      min_count: number of training items that a name needs to have a column of its own.
      keywords, cast, crew, companies: maximum number of names of each with a column of their own.
      buckets: hashed columns that all other names of such a block share; genres and languages have
        one column for the rest.
      leaky: also use popularity, votes and revenue, which leak the future.
      others: also use these columns of the table.
    """

    blocks: tuple[BlockName, ...] = USUAL
    min_count: int = 5
    keywords: int = 512
    cast: int = 256
    crew: int = 128
    companies: int = 32
    buckets: int = 16
    leaky: bool = False
    others: OtherColumns = OtherColumns()

    def __post_init__(self) -> None:
        unknown = [name for name in self.blocks if name not in BLOCKS]
        if unknown or len(set(self.blocks)) != len(self.blocks):
            raise UserError(
                f"the blocks are {', '.join(self.blocks)}; expected some of {', '.join(BLOCKS)}, "
                "each once"
            )
        for name, least in (("min_count", 1), ("keywords", 0), ("cast", 0), ("crew", 0),
                            ("companies", 0), ("buckets", 0)):  # fmt: skip
            value = getattr(self, name)
            if value < least:
                raise UserError(f"{name} is {value}; expected at least {least}")

    def columns_of(self, block: str) -> tuple[int, int]:
        """The maximum number of columns for single names in a block of names, and its buckets."""
        if block in ("genres", "language"):
            return _TOP_OF_SHORT_LISTS, 1
        if block in self.others.names:
            return _TOP_OF_OTHERS, self.buckets
        return int(getattr(self, block)), self.buckets


DEFAULTS = Options()
NO_OTHERS = DEFAULTS.others


@dataclass(frozen=True)
class TextOptions:
    """How titles, taglines and overviews are embedded.

    Attributes:
      model: name on the Hugging Face hub, or folder.
      revision: commit or tag on the hub. None: the newest.
      prompt: template with `{text}` and optionally `{title}`. None: EmbeddingGemma's prompt for
        documents, or title and text for other models.
      truncate_dim: keep only this many leading dimensions of an embedding. None: all.
      batch_size: texts per batch of the model.
    """

    model: str
    revision: str | None = None
    prompt: str | None = None
    truncate_dim: int | None = None
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.prompt is not None and "{text}" not in self.prompt:
            raise UserError(
                f"the text prompt is {self.prompt!r}; expected {{text}} in it, and perhaps "
                "{title}"
            )
        for name in ("truncate_dim", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; expected at least 1")
