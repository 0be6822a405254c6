"""Options: what of the metadata becomes columns, and how many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bert4rec_jax.errors import UserError

BlockName = Literal["genres", "language", "keywords", "cast", "crew", "companies", "numbers"]
BLOCKS: tuple[BlockName, ...] = get_args(BlockName)
USUAL: tuple[BlockName, ...] = ("genres", "language", "companies", "numbers")
"""What tells most about movies that nobody has watched. The others are learnt by heart."""

_TOP_OF_SHORT_LISTS = 64


@dataclass(frozen=True)
class Options:
    """How an encoder is fitted.

    Attributes:
      blocks: blocks of the metadata that are made.
      min_count: a name needs so many training items for a column of its own.
      keywords, cast, crew, companies: at most so many names of each have one.
      buckets: hashed columns that all other names of such a list share; genres and languages have
        one column for the rest.
      leaky: also popularity, votes and revenue, which know the future.
    """

    blocks: tuple[BlockName, ...] = USUAL
    min_count: int = 5
    keywords: int = 512
    cast: int = 256
    crew: int = 128
    companies: int = 32
    buckets: int = 16
    leaky: bool = False

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
        """The most names with a column of their own in a block of names, and its buckets."""
        if block in ("genres", "language"):
            return _TOP_OF_SHORT_LISTS, 1
        return int(getattr(self, block)), self.buckets


DEFAULTS = Options()


@dataclass(frozen=True)
class TextOptions:
    """How titles, taglines and overviews are embedded.

    Attributes:
      model: name on the Hugging Face hub, or folder.
      revision: commit or tag on the hub. None: the newest.
      prompt: with `{title}` and `{text}` in it. None: EmbeddingGemma's for documents, or for other
        models title and text.
      truncate_dim: keep so many numbers of an embedding. None: all.
      batch_size: texts that the model reads at once.
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
