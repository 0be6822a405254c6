"""Shared names: which items have which names, also those too rare for a column of content."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from bert4rec_jax.data.catalog import Catalog, name_and_year
from bert4rec_jax.features.movie import Movie

TITLE = "title"  # no other field has this name
_FIELDS = ("genres", "language", "keywords", "cast", "crew", "companies")


def names_of(movies: Sequence[Movie], others: Iterable[str] = ()) -> pa.Table:
    """The names of n movies: a row per movie, and a column of lists of text per field.

    The words of titles are in the column `TITLE`.

    Args:
      movies: what is known about each.
      others: more fields with names, see `Movie.others`.
    """
    fields: dict[str, Callable[[Movie], Sequence[str]]] = {
        field: partial(_names, field=field) for field in (*_FIELDS, *others)
    }
    fields[TITLE] = _title_words
    lists = pa.list_(pa.string())
    return pa.table({field: pa.array(map(names, movies), lists) for field, names in fields.items()})


def sets_of(names: pa.Table, catalog: Catalog) -> dict[str, sp.csr_array]:
    """Field -> `[V, m]` bool: which items of a catalog, by token, have which of m names.

    Args:
      names: those of the catalog's items, in its order; see `names_of`. Fields in which no item has
        a name are left out.
      catalog: the items.
    """
    sets = {}
    for field in names.column_names:
        column = names[field].combine_chunks()
        coded = column.flatten().dictionary_encode()
        width = len(coded.dictionary)
        if not width:
            continue
        lengths = np.zeros(catalog.num_rows, np.int64)
        lengths[catalog.is_item()] = np.diff(column.offsets.to_numpy())
        edges = np.concatenate([[0], np.cumsum(lengths)])
        columns = coded.indices.to_numpy()
        ones = np.ones(len(columns), np.bool_)
        sets[field] = sp.csr_array((ones, columns, edges), shape=(len(lengths), width))
    return sets


def _names(movie: Movie, field: str) -> list[str]:
    return list(dict.fromkeys(movie.names(field)))


def _title_words(movie: Movie) -> list[str]:
    """The words of a title in lower case: letters with their accents and vowel signs, and digits.

    A title in a script without spaces is one word. A year in brackets at the end is none.
    """
    name, _ = name_and_year(movie.title or "")
    title = unicodedata.normalize("NFC", name).lower()
    kept = (letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in title)
    return list(dict.fromkeys("".join(kept).split()))
