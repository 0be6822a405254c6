"""Filters: restrict which items of a catalog may be listed."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.checks import require, require_whole
from bert4rec_jax.data.catalog import FIRST_ITEM, Catalog, name_and_year
from bert4rec_jax.errors import UserError
from bert4rec_jax.serving.arguments import id_list, require_list

_SHOWN = 30  # genres in a message


@dataclass(frozen=True)
class Filters:
    """Conditions that listed items must meet; without any, every item may be listed.

    Attributes:
      genres: an item needs one of these, as the catalog names them; empty for any.
      years: the first and the last year allowed; the year is read from the end of the title, and an
        item without one is left out. None for any.
      only: the only items allowed (such as those that can be watched now): the path of a text file
        with an external id per line, or the ids themselves; None for any.
    """

    genres: Sequence[str] = ()
    years: tuple[int, int] | None = None
    only: Path | Collection[str | int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.genres, str):
            require_list("genres", self.genres, "a list of genres", ordered=False)
        genres = (self.genres,) if isinstance(self.genres, str) else tuple(self.genres)
        for genre in genres:
            require(isinstance(genre, str), "one of genres", genre, "text, as in the catalog")
        object.__setattr__(self, "genres", genres)
        if isinstance(self.only, str | PathLike):
            object.__setattr__(self, "only", Path(self.only))
        elif self.only is not None:
            object.__setattr__(
                self, "only", tuple(sorted(id_list("only", self.only, ordered=False)))
            )
        if self.years is not None:
            pair = isinstance(self.years, Sequence) and len(self.years) == 2
            require(pair, "years", self.years, "the first and the last one")
            years = tuple(require_whole(year, "one of years") for year in self.years)
            object.__setattr__(self, "years", years)

    def described(self) -> dict[str, Any]:
        """The filters as JSON values; ids are represented by the SHA-256 of their lines.

        Raises:
          UserError: the file does not exist or cannot be read.
        """
        return {
            "genres": list(self.genres),
            "years": list(self.years) if self.years else None,
            "only": None if self.only is None else _digest(self.only),
        }

    def without_file(self) -> Filters:
        """These filters with the ids that are in the file of `only` now, instead of its path.

        Raises:
          UserError: the file cannot be read, or is not UTF-8.
        """
        return replace(self, only=_ids(self.only)) if isinstance(self.only, Path) else self

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
        """The ids of `only` that the catalog does not have, sorted."""
        if self.only is None:
            return ()
        ids = set(catalog.item_ids)
        given = {line for line in _ids(self.only) if line.strip()}
        return tuple(sorted(line for line in given if not ids & {line, line.strip()}))


EVERYTHING = Filters()


def _named(only: Path | Collection[str | int], catalog: Catalog) -> npt.NDArray[np.bool_]:
    """`[len(catalog)]`: mask of the items that are named."""
    given = _ids(only)
    ids = {*given, *(line.strip() for line in given)} - {""}
    passing = np.array([item_id in ids for item_id in catalog.item_ids])
    if ids and not passing.any():
        where = f"{only}: none of its {len(ids):,} lines"
        if not isinstance(only, Path):
            where = f"only: none of its {len(ids):,} ids"
        raise UserError(
            f"{where} (such as {min(ids)!r}) is an id of the catalog (such as "
            f"{catalog.item_ids[0]!r})"
        )
    return passing


def _ids(only: Path | Collection[str | int]) -> list[str]:
    """The ids as they are given, or the lines of their file."""
    if not isinstance(only, Path):
        return [str(item) for item in only]
    try:
        text = _content(only).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{only} is not UTF-8 text (byte {error.start:,}); expected an item id per line: "
            "save it as UTF-8"
        ) from None
    # Not splitlines: ids may contain other line breaks.
    return [line.rstrip("\r") for line in text.split("\n")]


def _digest(only: Path | Collection[str | int]) -> str:
    content = _content(only) if isinstance(only, Path) else "\n".join(map(str, only)).encode()
    return hashlib.sha256(content).hexdigest()


def _content(file: Path) -> bytes:
    if not file.is_file():  # a pipe could not be read again
        found = "is no regular file" if file.exists() else "does not exist"
        raise UserError(f"{file} {found}; expected a file with an item id per line")
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
