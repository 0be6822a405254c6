import pytest
import shelf

from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.errors import UserError
from bert4rec_jax.features.metadata import read_metadata
from bert4rec_jax.features.movie import Movie
from bert4rec_jax.features.tmdb import movie_of

EXPECTED = [movie_of(row, "") for row in shelf.ROWS[:5]] + [Movie()]
WRITERS = {
    "m.parquet": shelf.write_parquet,
    "m.csv": shelf.write_csv,
    "m.jsonl": shelf.write_lines,
}


@pytest.mark.parametrize("name", WRITERS)
def test_rows_are_joined_in_the_catalogs_order_whatever_theirs(tmp_path, name):
    for rows in (shelf.ROWS, shelf.ROWS[::-1], shelf.ROWS[3:] + shelf.ROWS[:3]):
        found = read_metadata(WRITERS[name](tmp_path / name, rows), shelf.catalog())
        assert found.movies == EXPECTED
        assert found.matched.tolist() == [True] * 5 + [False]
        assert found.id_column == "imdb_id"


def test_the_column_that_matches_most_is_taken_and_named(tmp_path):
    # The ids of TMDB are a catalog of their own, two of which are numbers of IMDb too.
    catalog = Catalog(("949", "862", "603", "113277", "114709"), tuple("abcde"), ("",) * 5)
    file = shelf.write_parquet(tmp_path / "m.parquet")
    sentences = []
    found = read_metadata(file, catalog, notify=sentences.append)
    assert found.id_column == "tmdb_id"
    assert found.matched.tolist() == [True, True, True, False, False]
    assert sentences == [
        "m.parquet matches 3 of 5 items by tmdb_id (imdb_id 2); for example, 'a' is 'Heat'"
    ]
    chosen = read_metadata(file, catalog, id_column="imdb_id")
    assert chosen.matched.tolist() == [False, False, False, True, True]


def test_a_store_without_titles_has_nothing_to_check_a_match_by(tmp_path):
    catalog = Catalog(("949",), ("949",), ("",))
    sentences = []
    read_metadata(shelf.write_csv(tmp_path / "m.csv"), catalog, notify=sentences.append)
    assert sentences[0].endswith("'949' is 'Heat' (the store has no titles to check this by)")


def test_an_id_map_leads_from_the_catalog_to_the_table(tmp_path):
    catalog = Catalog(("1", "2"), ("1", "2"), ("", ""))
    file = shelf.write_parquet(tmp_path / "m.parquet")
    found = read_metadata(file, catalog, id_map={"1": "603", "2": "949"})
    assert [movie.title for movie in found.movies] == ["The Matrix", "Heat"]
    both = read_metadata(file, catalog, id_map={"1": "603", "2": "603"})
    assert [movie.title for movie in both.movies] == ["The Matrix", "The Matrix"]
    assert both.matched.all()


def test_the_ids_of_the_api(tmp_path):
    rows = [
        {"id": 949, "title": "Heat", "external_ids": {"imdb_id": "tt0113277"}},
        {"id": 2, "title": "Other", "external_ids": {"imdb_id": None}},
    ]
    file = shelf.write_lines(tmp_path / "m.json", rows)
    found = read_metadata(file, shelf.catalog())
    assert found.id_column == "imdb_id"
    assert found.movies[0].title == "Heat"


@pytest.mark.parametrize(("name", "place"), [("m.parquet", "row"), ("m.jsonl", "line")])
@pytest.mark.parametrize("written", ["tt0113277", "113277"])
def test_two_rows_for_one_item(tmp_path, name, place, written):
    rows = [*shelf.ROWS, shelf.ROWS[0] | {"imdb_id": written}]
    file = WRITERS[name](tmp_path / name, rows)
    with pytest.raises(UserError) as caught:
        read_metadata(file, shelf.catalog())
    assert str(caught.value) == (
        f"{file}, {place} 7: the imdb_id {written!r} stands for the item '0113277', and so did "
        f"{file}, {place} 1; expected one row per item: remove one of them"
    )


def test_two_rows_for_a_movie_of_no_interest(tmp_path):
    rows = [*shelf.ROWS, shelf.ROWS[-1]]
    assert read_metadata(shelf.write_csv(tmp_path / "m.csv", rows), shelf.catalog()).movies[0].title


def test_ids_that_match_nothing_are_shown_from_both_sides(tmp_path):
    file = shelf.write_parquet(tmp_path / "m.parquet")
    with pytest.raises(UserError) as caught:
        read_metadata(file, Catalog(("a", "b"), ("a", "b"), ("", "")))
    message = str(caught.value)
    assert message.startswith(f"{file}: no id matches the catalog (2 items, such as 'a', 'b'); ")
    assert "imdb_id has 6 such as '110912', '113277', '114709'; tmdb_id has 6 such as '1', " in (
        message
    )
    assert "tt0114709, 0114709 and 114709 are one id" in message
    assert message.endswith(" --id-column, or give a table from the catalog's ids to these with "
                            "--id-map")  # fmt: skip


def test_ids_that_match_by_accident(tmp_path):
    titles = tuple(f"Film {i} ({1940 + i})" for i in range(12))
    catalog = Catalog(tuple(map(str, range(12))), titles, ("",) * 12)
    rows = [{"tmdb_id": i, "title": f"Other {i}", "release_date": "2010-01-01"} for i in range(12)]
    file = shelf.write_lines(tmp_path / "m.jsonl", rows)
    message = (
        r"ids match by tmdb_id, but the years of 12 of 12 movies do not \(the catalog's "
        r"'Film 0 \(1940\)' would be 'Other 0', 2010\); these ids are of another kind"
    )
    with pytest.raises(UserError, match=message):
        read_metadata(file, catalog)
    # Half of the years, or a few movies, are no proof.
    half = [row | {"release_date": f"{1940 + i}-01-01"} if i % 2 else row
            for i, row in enumerate(rows)]  # fmt: skip
    assert read_metadata(shelf.write_lines(file, half), catalog).matched.all()
    assert read_metadata(shelf.write_lines(file, rows[:9]), catalog).matched.sum() == 9
    # Countries differ by a year.
    rows = [row | {"release_date": f"{1941 + i}-01-01"} for i, row in enumerate(rows)]
    assert read_metadata(shelf.write_lines(file, rows), catalog).matched.all()


@pytest.mark.parametrize("name", WRITERS)
def test_tables_with_other_columns(tmp_path, name):
    file = WRITERS[name](tmp_path / name)
    message = r"has no column 'imdb'; its columns are 'tmdb_id', .*: give the name of the column"
    with pytest.raises(UserError, match=message):
        read_metadata(file, shelf.catalog(), id_column="imdb")
    rows = [{"key": 1, "title": "Heat"}]
    options = () if name == "m.jsonl" else (("key", "title"),)
    with pytest.raises(
        UserError, match=r"has none of item_id, imdb_id, .*columns are 'key', 'title'"
    ):
        read_metadata(WRITERS[name](tmp_path / name, rows, *options), shelf.catalog())
    rows = [{"imdb_id": "tt0113277", "name": "Heat"}]
    options = () if name == "m.jsonl" else (("imdb_id", "name"),)
    message = r"says something about a movie; its columns are 'imdb_id', 'name', expected some of"
    with pytest.raises(UserError, match=message):
        read_metadata(WRITERS[name](tmp_path / name, rows, *options), shelf.catalog())


def test_a_bad_value_matters_where_the_movie_does(tmp_path):
    # The last row has a runtime of -5 and is no item's.
    rows = [shelf.ROWS[0] | {"runtime": -5.0}, *shelf.ROWS[1:]]
    file = shelf.write_parquet(tmp_path / "m.parquet", rows)
    with pytest.raises(UserError, match=r"m\.parquet, row 1: the runtime -5\.0 is not valid"):
        read_metadata(file, shelf.catalog())
