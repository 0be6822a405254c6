import math

import pytest
import shelf

from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.errors import UserError
from bert4rec_jax.features.match import candidate, imdb_number, plain, read_id_map


@pytest.mark.parametrize(
    ("value", "text"),
    [(862, "862"), (862.0, "862"), ("862.0", "862"), (" tt01 ", "tt01"), ("007", "007"),
     (None, None), ("", None), (math.nan, None), ("1.5", "1.5")],
)  # fmt: skip
def test_ids_as_text(value, text):
    assert plain(value) == text


@pytest.mark.parametrize("written", ["tt0114709", "0114709", "114709", "tt114709"])
def test_three_forms_of_an_imdb_id_are_one(written):
    assert imdb_number(written) == "114709"


@pytest.mark.parametrize("other", ["nm0000199", "tt", "", "tt12x", "0"])
def test_other_text_stays(other):
    assert imdb_number(other) == other


def matched(column, *values, id_map=None):
    found = candidate(column, set(values), shelf.catalog(), id_map)
    return {value: list(found.match.of(value)) for value in values}, found.matched


def test_imdb_ids_match_in_a_column_of_that_name_or_of_that_form():
    assert matched("imdb_id", "114709", "1")[0] == {"114709": [1], "1": []}
    assert matched("movie", "tt0114709", "tt0000001") == (
        {"tt0114709": [1], "tt0000001": []},
        1,
    )


def test_numbers_that_differ_in_zeros_alone_are_no_imdb_ids_unless_the_column_says_so():
    catalog = Catalog(("7", "007", "tt12"), ("a", "b", "c"), ("",) * 3)
    match = candidate("sku", {"007", "tt12"}, catalog, None).match
    assert [list(match.of(value)) for value in ("7", "007", "tt12", "12")] == [[0], [1], [2], []]
    assert list(candidate("imdb_id", {"007", "tt12"}, catalog, None).match.of("7")) == [0, 1]
    assert matched("sku", "7", "007", "tt12", "0114709")[0]["007"] == []


def test_other_numbers_match_as_they_are_written():
    assert matched("tmdb_id", "114709")[1] == 0
    assert matched("movielens_id", "0114709")[0] == {"0114709": [1]}


def test_ids_of_the_log_are_read_like_those_of_the_table():
    """A log keeps its ids as they are written; spaces and `.0` do not hide what they stand for."""
    catalog = Catalog((" 949", "862.0", "603"), ("a", "b", "c"), ("",) * 3)
    match = candidate("item_id", {"949", "862", "603"}, catalog, None).match
    assert [list(match.of(value)) for value in (949.0, "862", "603 ")] == [[0], [1], [2]]


def test_a_map_leads_to_the_ids_of_the_table_but_not_to_the_catalogs_own():
    id_map = {"0113277": "949", "0114709": "862", "0133093": "862"}
    found, count = matched("tmdb_id", "949", "862", "0110912", id_map=id_map)
    assert found == {"949": [0], "862": [1, 3], "0110912": []}
    assert count == 3
    assert matched("item_id", "0110912", id_map=id_map)[1] == 1


def test_id_maps(tmp_path):
    file = tmp_path / "map.txt"
    for text in ("0113277 949\n\n0114709\t862\n", "0113277,949\r\n0114709, 862", "0113277 949\n"
                 "0113277 949\n0114709 862\n"):  # fmt: skip
        file.write_text(text)
        assert read_id_map(file, shelf.catalog()) == {"0113277": "949", "0114709": "862"}


@pytest.mark.parametrize(
    "text",
    ["SKU 7\tp 1\nid,8 ★\t2\n", 'SKU 7,p 1\r\n"id,8 ★",2\r\n', ' SKU 7 ,"p 1"\n"id,8 ★", 2 \n'],
)
def test_ids_of_a_map_may_have_spaces_and_commas(tmp_path, text):
    (tmp_path / "map.csv").write_bytes(text.encode())
    catalog = Catalog(("SKU 7", "id,8 ★"), ("a", "b"), ("", ""))
    assert read_id_map(tmp_path / "map.csv", catalog) == {"SKU 7": "p 1", "id,8 ★": "2"}


def test_lines_of_an_id_map_end_where_editors_end_them(tmp_path):
    (tmp_path / "map.txt").write_text("0113277\x0b949\r\n0114709\x85862\n", encoding="utf-8")
    found = read_id_map(tmp_path / "map.txt", shelf.catalog())
    assert found == {"0113277": "949", "0114709": "862"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0113277 949\n0114709\n", r"line 2: '0114709' has 1 fields, expected an id of the cat"),
        ("0113277 949 x\n", r"line 1: '0113277 949 x' has 3 fields.* put a tab between the two"),
        ("0113277 949 x\r0114709 862 y\n", r"line 1: .* has 6 fields"),
        ("0113277 949\n0113277 950\n", r"line 2: the item '0113277' was '949' before and is"),
        ("949 0113277\n", r"none of its 1 lines begins with an id of the catalog \(such as "
         r"'0113277', '0114709', '0000417'; the map has '949'\); its second column does, so swap"),
        ("1 2\n", r"none of its 1 lines .* give the map that belongs to this data"),
    ],
)  # fmt: skip
def test_broken_id_maps(tmp_path, text, message):
    (tmp_path / "map.txt").write_text(text)
    with pytest.raises(UserError, match=rf"map\.txt.*{message}"):
        read_id_map(tmp_path / "map.txt", shelf.catalog())


def test_a_missing_map_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent does not exist"):
        read_id_map(tmp_path / "absent", shelf.catalog())
