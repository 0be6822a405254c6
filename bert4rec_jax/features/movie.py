"""Movie: what is known about one movie, and what a catalog itself says about its items."""

from __future__ import annotations

import calendar
import dataclasses
import datetime
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.catalog import Catalog, name_and_year

# Name of a genre in IMDb and MovieLens -> name in TMDB, so that both share one column.
_TMDB_GENRES = {
    "Sci-Fi": "Science Fiction",
    "Children's": "Family",
    "Children": "Family",
    "Musical": "Music",
}
# What `Movie.names` and `Movie.number` read from a movie itself; all else is in `others`.
_NAMES = frozenset(("genres", "language", "keywords", "cast", "crew", "companies"))
_NUMBERS = frozenset(
    ("runtime", "released", "budget", "revenue", "popularity", "vote_average", "vote_count")
)


@dataclass(frozen=True)
class Movie:
    """Facts about a movie. None and the empty tuple mean that a fact is not known.

    Attributes:
      title, tagline, overview: text.
      year: year of release.
      date: date of release as a fractional year: 2013.5 is the middle of 2013.
      language: ISO 639-1 code of the original language.
      genres, keywords, companies: names, each once.
      cast: names in billing order.
      crew: names of those who directed or wrote it.
      runtime: minutes, above 0.
      budget, revenue: US dollars, above 0.
      popularity, vote_average, vote_count: as of the day the table was made, so they leak the
        future of every earlier interaction; revenue does too.
      others: more facts by name: names or a number.
      texts: more texts about it.
    """

    title: str | None = None
    year: int | None = None
    date: float | None = None
    language: str | None = None
    genres: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    cast: tuple[str, ...] = ()
    crew: tuple[str, ...] = ()
    companies: tuple[str, ...] = ()
    runtime: float | None = None
    budget: float | None = None
    tagline: str | None = None
    overview: str | None = None
    popularity: float | None = None
    vote_average: float | None = None
    vote_count: float | None = None
    revenue: float | None = None
    others: Mapping[str, tuple[str, ...] | float] = field(default_factory=dict)
    texts: tuple[str, ...] = ()

    @property
    def released(self) -> float | None:
        """The date of release; the middle of the year if only that is known."""
        if self.date is not None or self.year is None:
            return self.date
        return self.year + 0.5

    @property
    def release_day(self) -> float | None:
        """The day of release, in days since 1970; None unless the whole date is known."""
        if self.date is None:
            return None
        year = math.floor(self.date)
        days = round((self.date - year) * (366 if calendar.isleap(year) else 365))
        return float((datetime.date(year, 1, 1) - datetime.date(1970, 1, 1)).days + days)

    def names(self, fact: str) -> tuple[str, ...]:
        """The names in a field or in an entry of `others`; a single name becomes a tuple of one."""
        value: Any = getattr(self, fact) if fact in _NAMES else self.others.get(fact)
        return (value,) if isinstance(value, str) else tuple(value or ())

    def number(self, fact: str) -> float | None:
        """The number in a field or in an entry of `others`."""
        value: Any = getattr(self, fact) if fact in _NUMBERS else self.others.get(fact)
        return None if value is None else float(value)

    def or_else(self, other: Movie) -> Movie:
        """This movie, with a missing title, year or genres taken from another one."""
        return dataclasses.replace(
            self,
            title=self.title or other.title,
            year=self.year or other.year,
            genres=self.genres or tuple(dict.fromkeys(map(_tmdb_genre, other.genres))),
        )

    def genres_among(self, names: Collection[str]) -> Movie:
        """This movie, with genres named as in IMDb or MovieLens if only that name is in `names`.

        If `names` has Sci-Fi but not Science Fiction, TMDB's Science Fiction becomes Sci-Fi.
        """
        known = (
            genre
            if genre in names
            else next((own for own in names if _TMDB_GENRES.get(own) == genre), genre)
            for genre in self.genres
        )
        return dataclasses.replace(self, genres=tuple(dict.fromkeys(known)))


def movies_of(catalog: Catalog) -> list[Movie]:
    """Title, year and genres of each item of a catalog, in its order.

    `Heat (1995)` with the genres `Crime|Drama` becomes the title Heat, the year 1995 and two
    genres. A title that only repeats the item's id counts as missing.
    """
    return [
        _movie(item_id, title, genres)
        for item_id, title, genres in zip(catalog.item_ids, catalog.titles, catalog.genres)
    ]


def release_days(movies: Sequence[Movie]) -> npt.NDArray[np.float32]:
    """`[n]`: the days of release of n movies, in days since 1970; NaN where it is not known."""
    days = (movie.release_day for movie in movies)
    return np.array([np.nan if day is None else day for day in days], np.float32)


def named(catalog: Catalog, movies: Sequence[Movie]) -> Catalog:
    """The catalog, with missing titles (and their years) and genres taken from movies."""
    titles = tuple(
        title_of(item_id, movie) if title == item_id else title
        for item_id, title, movie in zip(catalog.item_ids, catalog.titles, movies)
    )
    genres = tuple(own or "|".join(movie.genres) for own, movie in zip(catalog.genres, movies))
    return Catalog(catalog.item_ids, titles, genres)


def title_of(item_id: str, movie: Movie) -> str:
    """The title, with the year if that is known; the item's id if there is no title."""
    if movie.title is None:
        return item_id
    named = movie.year is None or movie.title.endswith(f"({movie.year})")
    return movie.title if named else f"{movie.title} ({movie.year})"


def _movie(item_id: str, title: str, genres: str) -> Movie:
    name, year = name_and_year(title)
    names = (genre.strip() for genre in genres.split("|"))
    return Movie(
        title=None if title == item_id else name or None,
        year=year,
        genres=tuple(dict.fromkeys(filter(None, names))),
    )


def _tmdb_genre(name: str) -> str:
    return _TMDB_GENRES.get(name, name)
