"""Filters: restrict which items of a catalog may be listed."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.checks import require, require_a, require_whole
from bert4rec_jax.data.catalog import FIRST_ITEM, Catalog, name_and_year
from bert4rec_jax.errors import UserError

_SHOWN = 30  # genres in a message


@dataclass(frozen=True)
class Filters:
    """Conditions that listed items must meet; without any, every item may be listed.

    Attributes:
      genres: an item needs one of these, as the catalog names them; empty for any.
      years: the first and the last year allowed; the year is read from the end of the title, and an
        item without one is left out. None for any.
      only: text file with an external id per line, the only items allowed (such as those that can
        be watched now); None for any.
    """

    genres: Sequence[str] = ()
    years: tuple[int, int] | None = None
    only: Path | None = None

    def __post_init__(self) -> None:
        genres = (self.genres,) if isinstance(self.genres, str) else tuple(self.genres)
        object.__setattr__(self, "genres", genres)
        if self.only is not None:
            require_a(str | PathLike, self.only, "only", "the path of a file of ids")
            object.__setattr__(self, "only", Path(self.only))
        if self.years is not None:
            pair = isinstance(self.years, Sequence) and len(self.years) == 2
            require(pair, "years", self.years, "the first and the last one")
            years = tuple(require_whole(year, "one of years") for year in self.years)
            object.__setattr__(self, "years", years)

    def described(self) -> dict[str, Any]:
        """The filters as JSON values; a file is represented by the SHA-256 of its content.

        Raises:
          UserError: the file does not exist or cannot be read.
        """
        return {
            "genres": list(self.genres),
            "years": list(self.years) if self.years else None,
            "only": hashlib.sha256(_content(self.only)).hexdigest() if self.only else None,
        }

    def allowed(self, catalog: Catalog) -> npt.NDArray[np.bool_]:
        """`[V]` bool: the items that pass.

        Raises:
          UserError: a genre is not in the catalog, the years are in the wrong order, the file is
            missing, not UTF-8 or has no id of the catalog, or no item is left.
        """
        passing = np.ones(len(catalog), bool)
        if self.genres:
            tokens = range(FIRST_ITEM, catalog.num_tokens)
            sets = [set(catalog.genres_of(token)) for token in tokens]
            known = set().union(*sets)
            for genre in self.genres:
                if genre not in known:
                    raise _unknown_genre(genre, sorted(known))
            passing &= [not genres.isdisjoint(self.genres) for genres in sets]
        if self.years:
            first, last = self.years
            if first > last:
                raise UserError(f"years are {first} to {last}; expected the earlier one first")
            found = [name_and_year(title)[1] for title in catalog.titles]
            passing &= [year is not None and first <= year <= last for year in found]
        if self.only is not None:
            passing &= _named(self.only, catalog)
        if not passing.any():
            raise UserError("no item of the catalog passes the filters; widen them")
        rows = np.zeros(catalog.num_rows, bool)
        rows[FIRST_ITEM : catalog.num_tokens] = passing
        return rows

    def unknown(self, catalog: Catalog) -> tuple[str, ...]:
        """The lines of `only` that are no id of the catalog, sorted."""
        if self.only is None:
            return ()
        ids = set(catalog.item_ids)
        lines = {line for line in _lines(self.only) if line.strip()}
        return tuple(sorted(line for line in lines if not ids & {line, line.strip()}))


EVERYTHING = Filters()


def _named(file: Path, catalog: Catalog) -> npt.NDArray[np.bool_]:
    """`[len(catalog)]`: mask of the items whose ids are lines of a file."""
    lines = _lines(file)
    ids = set(lines) | {line.strip() for line in lines}
    ids -= {""}
    passing = np.array([item_id in ids for item_id in catalog.item_ids])
    if ids and not passing.any():
        raise UserError(
            f"{file}: none of its {len(ids):,} lines (such as {min(ids)!r}) is an id of the "
            f"catalog (such as {catalog.item_ids[0]!r})"
        )
    return passing


def _lines(file: Path) -> list[str]:
    try:
        text = _content(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file} is not UTF-8 text (byte {error.start:,}); expected an item id per line: "
            "save it as UTF-8"
        ) from None
    # Not splitlines: ids may contain other line breaks.
    return [line.rstrip("\r") for line in text.split("\n")]


def _content(file: Path) -> bytes:
    if not file.is_file():
        raise UserError(f"{file} does not exist; expected a file with an item id per line")
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error


def _unknown_genre(genre: str, known: Sequence[str]) -> UserError:
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(genre.lower(), folded)
    meant = " or ".join(repr(folded[name]) for name in close)
    shown = ", ".join(known[:_SHOWN]) or "none"
    more = len(known) - _SHOWN
    return UserError(
        f"no item has the genre {genre!r}{f' (did you mean {meant}?)' if meant else ''}; the "
        f"catalog has {shown}{f' and {more:,} more' if more > 0 else ''}"
    )
