"""Shared names: as movies have them, at the tokens of their items."""

import unicodedata

import numpy as np
import pytest
import shelf

from bert4rec_jax.errors import UserError
from bert4rec_jax.features.build import build, training_items
from bert4rec_jax.features.content import Content, content_rows, write_content
from bert4rec_jax.features.encoder import fit
from bert4rec_jax.features.movie import Movie, movies_of
from bert4rec_jax.features.options import Options, OtherColumns
from bert4rec_jax.features.shared_names import TITLE, names_of, sets_of
from bert4rec_jax.features.sources import Sources

CATALOG = shelf.catalog()
MOVIES = [
    Movie(title="Toy Story 2", genres=("Comedy", "Drama"), cast=("A", "B", "A")),
    Movie(title="toy; story", language="en", crew=("C",), others={"brand": ("X",)}),
    Movie(others={"brand": "Y"}),
    Movie(cast=("B",), companies=("Comedy",)),
    Movie(),
    Movie(title="L'été à Naïve"),
]


def test_names_are_those_of_each_movie_once():
    table = names_of(MOVIES, ["brand"])
    rows = {name: table[name].to_pylist() for name in table.column_names}
    assert rows["cast"] == [["A", "B"], [], [], ["B"], [], []]
    assert rows["genres"][0] == ["Comedy", "Drama"]
    assert rows["language"] == [[], ["en"], [], [], [], []]
    assert rows["brand"] == [[], ["X"], ["Y"], [], [], []]
    assert rows[TITLE][:2] == [["toy", "story", "2"], ["toy", "story"]]
    assert rows[TITLE][2:] == [[], [], [], ["l", "été", "à", "naïve"]]
    assert len(names_of([], ["brand"])) == 0


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("हिन्दी फ़िल्म", ["हिन्दी", "फ़िल्म"]),  # vowel signs are parts of words
        ("L'e\u0301te\u0301", ["l", "été"]),  # accents as characters of their own
        ("千と千尋の神隠し", ["千と千尋の神隠し"]),
        ("WALL·E_2 & İ", ["wall", "e", "2", "i\u0307"]),
        ("...!?", []),
        ("Heat (1995)", ["heat"]),  # as MovieLens writes titles, also in tables
        ("1984", ["1984"]),
        ("", []),
    ],
)
def test_words_of_titles_in_other_scripts(title, words):
    normal = [unicodedata.normalize("NFC", word) for word in words]
    assert names_of([Movie(title=title)])[TITLE].to_pylist() == [normal]


def test_a_column_called_as_the_words_of_titles_were_is_kept():
    movies = [Movie(title="Heat", others={"title words": ("own",)})]
    table = names_of(movies, OtherColumns(names=("title words",)).names)
    assert table["title words"].to_pylist() == [["own"]]
    assert table[TITLE].to_pylist() == [["heat"]]
    with pytest.raises(UserError, match="the column 'title' is one of movies"):
        OtherColumns(names=(TITLE,))


def test_sets_stand_at_the_tokens_of_their_items():
    sets = sets_of(names_of(MOVIES), CATALOG)
    assert set(sets) == {"genres", "language", "cast", "crew", "companies", TITLE}
    cast = sets["cast"]
    assert cast.dtype == bool and cast.shape == (CATALOG.num_rows, 2)
    assert cast[2:8].toarray().T.tolist() == [[1, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0]]
    assert cast.nnz == 3  # nothing at PAD, MASK and padding
    titles = (sets[TITLE].astype(int) @ sets[TITLE].astype(int).T).toarray()
    assert titles[2, 3] == 2 and titles[2, 7] == 0


def test_a_folder_of_content_keeps_them(tmp_path):
    encoder = fit(MOVIES, np.ones(6, bool), options=Options(min_count=1))
    matrix = content_rows(CATALOG, encoder.encode(MOVIES))
    written = write_content(
        tmp_path / "new", CATALOG, matrix, encoder, {}, shared_names=names_of(MOVIES)
    )
    assert written.shared_names.equals(names_of(MOVIES))
    assert "shared_names.parquet" in written.manifest["checksums"]
    assert write_content(tmp_path / "old", CATALOG, matrix, encoder, {}).shared_names is None
    assert Content.open(tmp_path / "new", CATALOG).shared_names.equals(names_of(MOVIES))


def test_all_names_of_a_table_are_kept_also_without_columns_of_their_own(tmp_path):
    store = shelf.store(tmp_path / "store")
    table = tmp_path / "movies.parquet"
    rows = [{**row, "brand": f"B{place % 2}"} for place, row in enumerate(shelf.ROWS)]
    shelf.write_parquet(table, rows, [*shelf.FIELDS, "brand"])
    options = Options(others=OtherColumns(names=("brand",)))
    built = build(
        store,
        tmp_path / "content",
        fitted=training_items(store),
        sources=Sources(metadata=table),
        options=options,
    )
    names = built.content.shared_names
    by_id = dict(zip(store.catalog.item_ids, names["keywords"].to_pylist()))
    assert by_id["0113277"] == ["heist", "los angeles"]
    assert "brand" in names.column_names and "crew" in names.column_names
    assert {block.name for block in built.content.blocks}.isdisjoint({"keywords", "cast", "crew"})


def test_a_catalog_has_titles_and_genres():
    sets = sets_of(names_of(movies_of(CATALOG)), CATALOG)
    assert set(sets) == {"genres", TITLE}
