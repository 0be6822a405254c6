"""Encoder: frozen vocabularies and scales that turn movies into rows of content."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.errors import UserError
from bert4rec_jax.features.blocks import Curve, NameBlock, NumberBlock, VectorBlock
from bert4rec_jax.features.movie import Movie
from bert4rec_jax.features.options import Options, OtherColumns
from bert4rec_jax.features.vectors import Vectors
from bert4rec_jax.features.vocabulary import Vocabulary

SCHEMA_VERSION = 2

_NUMBERS = ("runtime", "released", "budget")
_OTHERS = "other numbers"
_LEAKY = ("popularity", "vote_average", "vote_count", "revenue")
_KINDS = {"names": NameBlock, "numbers": NumberBlock, "vectors": VectorBlock}

Block = NameBlock | NumberBlock | VectorBlock


@dataclass(frozen=True)
class Span:
    """The columns of a block.

    Attributes:
      name: of the block.
      start, stop: its columns are `start:stop`.
      missing: part of the block -> the column that is above 0 if that part is missing, else 0.
    """

    name: str
    start: int
    stop: int
    missing: Mapping[str, int]


@dataclass(frozen=True)
class Encoder:
    """Blocks side by side.

    `encode` depends on nothing but the fitted blocks and its arguments, so items that are added to
    a catalog later are encoded exactly as the first ones were.

    Attributes:
      blocks: in the order of their columns, at least one.
      options: the options that they were fitted with.
    """

    blocks: tuple[Block, ...]
    options: Options

    @property
    def width(self) -> int:
        """Number of columns F of a row."""
        return sum(block.width for block in self.blocks)

    def spans(self) -> tuple[Span, ...]:
        """The columns of each block."""
        spans, start = [], 0
        for block in self.blocks:
            missing = {part: start + column for part, column in block.missing.items()}
            spans.append(Span(block.name, start, start + block.width, missing))
            start += block.width
        return tuple(spans)

    def encode(
        self, movies: Sequence[Movie], vectors: Mapping[str, Vectors] | None = None
    ) -> npt.NDArray[np.float32]:
        """`[n, F]`: the content of n movies.

        Args:
          movies: what is known about each; `Movie()` if nothing is.
          vectors: block -> embeddings of the n movies, for each block of embeddings.

        Raises:
          UserError: embeddings are missing, or not of the fitted width.
        """
        vectors = vectors or {}
        rows = np.zeros((len(movies), self.width), np.float32)
        for block, span in zip(self.blocks, self.spans()):
            part = rows[:, span.start : span.stop]
            if isinstance(block, VectorBlock):
                part[:] = block.encode(_of_width(block, vectors.get(block.name)))
            else:
                part[:] = block.encode(movies)
        return rows

    def informed(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """`[n]`: mask of the rows, of `[n, F]`, in which at least one part of a block is known."""
        known = np.zeros(len(rows), bool)
        for block in self.spans():
            for column in block.missing.values():
                known |= rows[:, column] == 0
        return known

    def values(self, rows: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Number or block of embeddings -> its columns of `[n, F]` rows, without missing marks."""
        found = {}
        for block, span in zip(self.blocks, self.spans()):
            if isinstance(block, NumberBlock):
                stops = [span.start + column for column in block.missing.values()]
                for number, stop in zip(block.numbers, stops):
                    found[number.name] = rows[:, stop - len(number.knots) : stop]
            elif isinstance(block, VectorBlock):
                found[block.name] = rows[:, span.start : span.stop - 1]
        return found

    def to_json(self) -> dict[str, Any]:
        """The encoder as values for JSON, from which `from_json` makes an equal one."""
        kinds = {kind: name for name, kind in _KINDS.items()}
        return {
            "schema_version": SCHEMA_VERSION,
            "options": dataclasses.asdict(self.options),
            "blocks": [
                {"kind": kinds[type(block)], **dataclasses.asdict(block)} for block in self.blocks
            ],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Encoder:
        """The encoder that `to_json` wrote.

        Raises:
          UserError: another version wrote it.
        """
        try:
            if values["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema {values['schema_version']}")
            options = {**values["options"], "blocks": tuple(values["options"]["blocks"])}
            others = options.get("others", {})  # earlier versions did not write it
            options["others"] = OtherColumns(**{kind: tuple(x) for kind, x in others.items()})
            return cls(tuple(map(_block, values["blocks"])), Options(**options))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"the encoder was written by another version ({error}; this one reads schema "
                f"{SCHEMA_VERSION}); make it again with `bert4rec features`"
            ) from None

    def dumps(self) -> str:
        """`to_json` as text."""
        return json.dumps(self.to_json()) + "\n"


def fit(
    movies: Sequence[Movie],
    fitted: npt.NDArray[np.bool_],
    *,
    options: Options,
    vectors: Mapping[str, Vectors] | None = None,
) -> Encoder:
    """Fit an encoder on the movies in the training data; blocks without data there are left out.

    Args:
      movies: all n movies.
      fitted: `[n]`: mask of the movies that vocabularies, means and scales are fitted on.
      options: which metadata become columns.
      vectors: block -> embeddings of the n movies.

    Raises:
      UserError: nothing is known about any fitted movie.
    """
    seen = [movie for movie, counts in zip(movies, fitted) if counts]
    blocks: list[Block | None] = []
    for field in options.blocks:
        if field == "numbers":
            blocks.append(NumberBlock.fit(field, _NUMBERS, seen))
        else:
            top, buckets = options.columns_of(field)
            blocks.append(
                NameBlock.fit(field, seen, min_count=options.min_count, top=top, buckets=buckets)
            )
    if options.leaky:
        blocks.append(NumberBlock.fit("leaky", _LEAKY, seen))
    for name in options.others.names:
        top, buckets = options.columns_of(name)
        blocks.append(
            NameBlock.fit(name, seen, min_count=options.min_count, top=top, buckets=buckets)
        )
    if options.others.numbers:
        blocks.append(NumberBlock.fit(_OTHERS, options.others.numbers, seen))
    for name, given in (vectors or {}).items():
        blocks.append(VectorBlock.fit(name, Vectors(given.values[fitted], given.present[fitted])))
    kept = tuple(block for block in blocks if block)
    if not kept:
        raise UserError(
            f"none of the {len(seen):,} items with a training interaction has "
            f"{', '.join([*options.blocks, *options.others, *(vectors or {})])}; give a table with "
            "--metadata, other --blocks, or --name-columns and --number-columns of the table"
        )
    return Encoder(kept, options)


def _of_width(block: VectorBlock, vectors: Vectors | None) -> Vectors:
    if vectors is None:
        raise UserError(
            f"the content has a block {block.name!r} of embeddings of {len(block.mean)} numbers; "
            "give those of these items too"
        )
    if vectors.dim != len(block.mean):
        raise UserError(
            f"the embeddings of the block {block.name!r} have {vectors.dim} numbers, expected "
            f"{len(block.mean)} as when it was fitted; use the same model and the same width"
        )
    return vectors


def _block(values: dict[str, Any]) -> Block:
    fields = {name: value for name, value in values.items() if name != "kind"}
    if values["kind"] == "names":
        vocabulary = fields.pop("vocabulary")
        names = tuple(vocabulary["names"])
        return NameBlock(vocabulary=Vocabulary(names, vocabulary["buckets"]), **fields)
    if values["kind"] == "numbers":
        curves = fields.pop("numbers")
        numbers = tuple(Curve(curve["name"], tuple(curve["knots"])) for curve in curves)
        return NumberBlock(numbers=numbers, **fields)
    if values["kind"] == "vectors":
        return VectorBlock(mean=tuple(fields.pop("mean")), **fields)
    raise ValueError(f"a block of kind {values['kind']!r}")
