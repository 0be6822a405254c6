"""TMDB: convert a record of a movie table, flat or as in TMDB's API, to a Movie."""

from __future__ import annotations

import calendar
import datetime
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bert4rec_jax.data.delimited import is_utf8, shorten
from bert4rec_jax.data.literals import literal
from bert4rec_jax.errors import UserError
from bert4rec_jax.features.movie import Movie

COLUMNS = (
    "title", "original_title", "release_date", "year", "original_language", "spoken_languages",
    "runtime", "budget", "genres", "keywords", "cast", "credits", "crew", "director", "directors",
    "production_companies", "companies", "tagline", "overview", "popularity", "vote_average",
    "vote_count", "revenue",
)  # fmt: skip
"""Columns that say something about a movie."""
BILLED = 10
"""Number of cast members to keep, in billing order."""

_JOBS = ("Director", "Writer", "Screenplay")
_WRAPPERS = ("keywords", "results")
_LOOKS_LIKE_JSON = re.compile(r"""\s*(\[\s*[]{"']|\{)""")
_DATE = re.compile(r"\s*(\d{4})-(\d\d)-(\d\d)")
_FIRST_YEAR, _LAST_YEAR = 1870, 2100
_LIST = "names with a separator, or TMDB's list of objects with a name"


def id_of(values: Mapping[str, Any], column: str) -> object:
    """The id in a column, or under the same name in TMDB's `external_ids`."""
    external = values.get("external_ids")
    if values.get(column) is None and isinstance(external, Mapping):
        return external.get(column)
    return values.get(column)


def movie_of(
    values: Mapping[str, Any],
    where: str,
    *,
    separator: str = "|",
    names: Iterable[str] = (),
    numbers: Iterable[str] = (),
    texts: Iterable[str] = (),
) -> Movie:
    """Convert a record to a movie.

    A list may be text with a separator, a JSON list (of names or of objects with a `name`), or one
    of TMDB's objects around a list (`{"keywords": [...]}`). Null, empty text, an empty list and NaN
    mean that a value is unknown, and so does 0 as a runtime, budget, revenue or average vote.

    Args:
      values: the record.
      where: its place, for messages.
      separator: between the names of a list in one text.
      names: more fields with names, which may be whole numbers or true and false too.
      numbers: more fields with finite numbers.
      texts: more fields with text.

    Raises:
      UserError: a field has a value of another kind.
    """
    fields = _Fields(values, where, separator)
    spoken = fields.names("spoken_languages")
    found = {
        **{name: fields.categories(name) for name in names},
        **{name: fields.number(name, least=-math.inf) for name in numbers},
    }
    return Movie(
        title=fields.text("title") or fields.text("original_title"),
        year=fields.year("release_date") or fields.year("year"),
        date=fields.date("release_date"),
        language=fields.text("original_language") or next(iter(spoken), None),
        genres=fields.names("genres"),
        keywords=fields.names("keywords"),
        cast=fields.cast(),
        crew=fields.crew(),
        companies=fields.names("production_companies") or fields.names("companies"),
        runtime=fields.number("runtime") or None,
        budget=fields.number("budget") or None,
        tagline=fields.text("tagline"),
        overview=fields.text("overview"),
        texts=tuple(filter(None, map(fields.text, texts))),
        popularity=fields.number("popularity"),
        vote_average=fields.number("vote_average") or None,
        vote_count=fields.number("vote_count"),
        revenue=fields.number("revenue") or None,
        others={name: value for name, value in found.items() if value not in (None, ())},
    )


@dataclass(frozen=True)
class _Fields:
    """The fields of one record, each validated when it is read."""

    values: Mapping[str, Any]
    where: str
    separator: str

    def text(self, field: str) -> str | None:
        value = self.values.get(field)
        if _is_nothing(value):
            return None
        if not isinstance(value, str):
            raise self._invalid(field, value, "text")
        self._require_unicode(field, value)
        return value.strip()

    def number(self, field: str, *, least: float = 0) -> float | None:
        value = self.values.get(field)
        if _is_nothing(value):
            return None
        number = _float(value)
        if number is None or not (least <= number and math.isfinite(number)):
            raise self._invalid(field, value, "a finite number" if least else "a number from 0")
        return number

    def year(self, field: str) -> int | None:
        """The year of a date, of text that begins with one, or of a number."""
        value = self.values.get(field)
        if _is_nothing(value):
            return None
        if isinstance(value, datetime.date):  # `datetime` is a subclass
            return value.year
        begins = isinstance(value, str) and re.match(r"\s*(\d{4})(-|\s*$)", value)
        year = float(begins[1]) if begins else _float(value)
        if year is None or not _FIRST_YEAR <= year <= _LAST_YEAR or year != int(year):
            expected = f"a year from {_FIRST_YEAR} to {_LAST_YEAR}, or a date such as 1995-12-15"
            raise self._invalid(field, value, expected)
        return int(year)

    def date(self, field: str) -> float | None:
        """A date as a fractional year; None if there is no complete date."""
        value = self.values.get(field)
        if isinstance(value, str) and (begins := _DATE.match(value)):
            try:
                value = datetime.date(*map(int, begins.groups()))
            except ValueError:
                return None
        if not isinstance(value, datetime.date):
            return None
        days = value.timetuple().tm_yday - 1
        return value.year + days / (366 if calendar.isleap(value.year) else 365)

    def names(self, field: str) -> tuple[str, ...]:
        # A language is named by its code, as original_language is.
        key = "iso_639_1" if field == "spoken_languages" else "name"
        return self._unique(field, self._entries(field, self.values.get(field)), key)

    def categories(self, field: str) -> tuple[str, ...]:
        """Names, or codes as text: 3 and 3.0 become "3", true becomes "true"."""
        value = self.values.get(field)
        entries = [value] if isinstance(value, int | float) else self._entries(field, value)
        return self._unique(
            field, [_category(entry) for entry in entries if not _is_nothing(entry)]
        )

    def cast(self) -> tuple[str, ...]:
        """The first cast members in billing order, at most `BILLED`."""
        people = self._entries("cast", self.values.get("cast") or self._credits().get("cast"))
        return self._unique("cast", sorted(people, key=_billing))[:BILLED]

    def crew(self) -> tuple[str, ...]:
        """Directors, then the crew: if the record names jobs, only its directors and writers."""
        people = self._entries("crew", self.values.get("crew") or self._credits().get("crew"))
        chosen = [p for p in people if not isinstance(p, Mapping) or p.get("job") in _JOBS]
        directors = self.names("director") or self.names("directors")
        return tuple(dict.fromkeys((*directors, *self._unique("crew", chosen))))

    def _credits(self) -> Mapping[str, Any]:
        value = self._parsed("credits", self.values.get("credits"))
        if _is_nothing(value):
            return {}
        if not isinstance(value, Mapping):
            raise self._invalid("credits", value, "an object with cast and crew")
        return value

    def _entries(self, field: str, value: object) -> list[Any]:
        """The entries of a list, in any form that `movie_of` accepts."""
        value = self._parsed(field, value)
        if isinstance(value, Mapping):
            value = next((value[key] for key in _WRAPPERS if key in value), value)
        if _is_nothing(value):
            return []
        if isinstance(value, str):
            return [name for name in map(str.strip, value.split(self.separator)) if name]
        if isinstance(value, list | tuple):
            return [entry for entry in value if not _is_nothing(entry)]
        raise self._invalid(field, value, _LIST)

    def _parsed(self, field: str, value: object) -> object:
        """A value; text that holds a JSON or Python list or object is parsed."""
        if not isinstance(value, str) or not _LOOKS_LIKE_JSON.match(value):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
        try:
            return literal(value)
        except ValueError:
            raise self._invalid(field, value, f"JSON, {_LIST}") from None

    def _unique(self, field: str, entries: Iterable[Any], key: str = "name") -> tuple[str, ...]:
        names: dict[str, None] = {}
        for entry in entries:
            name = entry.get(key) if isinstance(entry, Mapping) else entry
            if not isinstance(name, str) or not name.strip():
                raise self._invalid(field, entry, _LIST)
            self._require_unicode(field, name)
            names[name.strip()] = None
        return tuple(names)

    def _require_unicode(self, field: str, text: str) -> None:
        if not is_utf8(text):
            raise self._invalid(field, text, "Unicode text, without half of a surrogate pair")

    def _invalid(self, field: str, value: object, expected: str) -> UserError:
        return UserError(
            f"{self.where}: the {field} {shorten(value)} is not valid; expected {expected}: fix "
            "or remove the row"
        )


def _category(entry: object) -> object:
    """A whole number or boolean as text; other entries as they are."""
    if isinstance(entry, float) and entry.is_integer():
        entry = int(entry)
    return str(entry).lower() if isinstance(entry, int) else entry


def _is_nothing(value: object) -> bool:
    """Whether a value means "unknown": None, NaN or blank text."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())


def _float(value: object) -> float | None:
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


def _billing(person: object) -> float:
    order = person.get("order") if isinstance(person, Mapping) else None
    return order if isinstance(order, int | float) else math.inf
