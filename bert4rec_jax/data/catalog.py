"""Catalog: the single source of token ids, external item ids, titles and genres."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bert4rec_jax.errors import UserError

PAD = 0
MASK = 1
FIRST_ITEM = 2
ROW_MULTIPLE = 256  # the item table splits evenly over up to 256 devices
_NAME_AND_YEAR = re.compile(r"(.*\S)\s*\(((?:18|19|20)\d\d)\)", re.DOTALL)


@dataclass(frozen=True)
class Catalog:
    """Items in token order: token `FIRST_ITEM + i` stands for `item_ids[i]`.

    A token never changes once assigned; new items are appended. An item without a title has its
    external id as title. An item without genres has the empty string; several genres are separated
    by `|`.
    """

    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    genres: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.item_ids) == len(self.titles) == len(self.genres):
            raise ValueError(
                f"{len(self.item_ids)} ids, {len(self.titles)} titles and {len(self.genres)} genres"
            )

    def __repr__(self) -> str:
        return f"Catalog({len(self):,} items)"

    def __len__(self) -> int:
        return len(self.item_ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._tokens

    @property
    def num_tokens(self) -> int:
        """Number of tokens: PAD, MASK and the items."""
        return FIRST_ITEM + len(self.item_ids)

    @property
    def num_rows(self) -> int:
        """Rows V of the item table: `num_tokens` rounded up so that the table shards evenly."""
        return -(-self.num_tokens // ROW_MULTIPLE) * ROW_MULTIPLE

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the external ids in token order."""
        digest = hashlib.sha256()
        for item_id in self.item_ids:
            digest.update(item_id.encode() + b"\0")
        return digest.hexdigest()

    @cached_property
    def _tokens(self) -> dict[str, int]:
        return {item_id: FIRST_ITEM + i for i, item_id in enumerate(self.item_ids)}

    def token(self, item_id: str) -> int:
        """The token of an external id.

        Raises:
          UserError: the catalog has no such item.
        """
        try:
            return self._tokens[item_id]
        except KeyError:
            raise UserError(
                f"item {item_id!r} is not among the {len(self):,} items of the catalog"
            ) from None

    def find(self, item_ids: Sequence[str | None]) -> npt.NDArray[np.int32]:
        """The token of each external id; PAD for those that the catalog does not have."""
        found = (self._tokens.get(item_id, PAD) for item_id in item_ids)  # type: ignore[arg-type]
        return np.fromiter(found, np.int32, len(item_ids))

    def item_id(self, token: int) -> str:
        """The external id of an item's token."""
        if token < FIRST_ITEM:
            raise IndexError(f"token {token} stands for no item; the first item is {FIRST_ITEM}")
        return self.item_ids[token - FIRST_ITEM]

    def title(self, token: int) -> str:
        """The title of a token's item; `<pad>` for PAD and `<mask>` for MASK."""
        if token < FIRST_ITEM:
            return "<mask>" if token == MASK else "<pad>"
        return self.titles[token - FIRST_ITEM]

    def genres_of(self, token: int) -> tuple[str, ...]:
        """The genres of a token's item; none for PAD and MASK."""
        if token < FIRST_ITEM:
            return ()
        names = self.genres[token - FIRST_ITEM].split("|")
        return tuple(filter(None, map(str.strip, names)))  # tables may have spaces around each |

    def is_item(self) -> npt.NDArray[np.bool_]:
        """`[V]`: true for rows that stand for an item, false for PAD, MASK and padded rows."""
        rows = np.arange(self.num_rows)
        return (rows >= FIRST_ITEM) & (rows < self.num_tokens)

    def write(self, path: Path) -> None:
        """Write the catalog as Parquet."""
        columns = {"item_id": self.item_ids, "title": self.titles, "genres": self.genres}
        pq.write_table(
            pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}),
            path,
        )

    @classmethod
    def read(cls, file: Path | pa.NativeFile) -> Catalog:
        """Read what `write` wrote."""
        table = pq.read_table(file)
        return cls(*(_strings(table[name]) for name in ("item_id", "title", "genres")))


def name_and_year(title: str) -> tuple[str, int | None]:
    """A title without the year in brackets at its end, and that year; None if there is none."""
    found = _NAME_AND_YEAR.fullmatch(title.strip())
    return (found[1], int(found[2])) if found else (title.strip(), None)


def _strings(column: pa.ChunkedArray) -> tuple[str, ...]:
    values: Sequence[str] = column.to_pylist()
    return tuple(values)
