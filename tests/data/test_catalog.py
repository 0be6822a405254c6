import hashlib

import pytest

from bert4rec_jax.data.catalog import MASK, PAD, Catalog, name_and_year
from bert4rec_jax.errors import UserError

CATALOG = Catalog(("0054890", "x", "ü"), ("La notte", "x", "Ü"), ("Drama", "", "Comedy|War"))


def test_items_have_tokens_from_two_on():
    assert [CATALOG.token(item) for item in ("0054890", "x", "ü")] == [2, 3, 4]
    assert [CATALOG.title(token) for token in (PAD, MASK, 2, 4)] == [
        "<pad>", "<mask>", "La notte", "Ü",
    ]  # fmt: skip
    assert len(CATALOG) == 3
    assert CATALOG.num_tokens == 5


def test_what_the_catalog_does_not_have_is_found_as_padding():
    assert CATALOG.find(["ü", "y", None, "x"]).tolist() == [4, PAD, PAD, 3]


def test_tokens_have_ids_and_genres():
    assert [CATALOG.item_id(token) for token in (2, 3, 4)] == ["0054890", "x", "ü"]
    with pytest.raises(IndexError, match="token 1 stands for no item"):
        CATALOG.item_id(MASK)
    genres = [CATALOG.genres_of(token) for token in (PAD, MASK, 2, 3, 4)]
    assert genres == [(), (), ("Drama",), (), ("Comedy", "War")]
    spaced = Catalog(("x", "y"), ("x", "y"), ("Comedy | War ", " | "))
    assert [spaced.genres_of(token) for token in (2, 3)] == [("Comedy", "War"), ()]
    assert "x" in CATALOG and "y" not in CATALOG and None not in CATALOG


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Heat (1995)", ("Heat", 1995)), (" La Sortie (1895) ", ("La Sortie", 1895)),
        ("2012 (2009)", ("2012", 2009)), ("Room (1408)", ("Room (1408)", None)),
        ("Heat 1995", ("Heat 1995", None)), ("(1995)", ("(1995)", None)),
    ],
)  # fmt: skip
def test_the_year_stands_in_brackets_at_the_end_of_a_title(title, expected):
    assert name_and_year(title) == expected


def test_unknown_item_is_named():
    with pytest.raises(UserError, match="item 'y' is not among the 3 items of the catalog"):
        CATALOG.token("y")


@pytest.mark.parametrize(("items", "rows"), [(0, 256), (1, 256), (254, 256), (255, 512)])
def test_rows_are_padded_to_a_multiple_of_256(items, rows):
    ids = tuple(map(str, range(items)))
    catalog = Catalog(ids, ids, ids)
    assert catalog.num_rows == rows
    assert catalog.is_item().sum() == items
    assert not catalog.is_item()[:2].any()
    assert not catalog.is_item()[2 + items :].any()


def test_fingerprint_is_the_hash_of_the_ids_in_token_order():
    expected = hashlib.sha256("0054890\0x\0ü\0".encode()).hexdigest()
    assert CATALOG.fingerprint == expected
    swapped = Catalog(("x", "0054890", "ü"), CATALOG.titles, CATALOG.genres)
    joined = Catalog(("0054890x", "ü"), ("", ""), ("", ""))
    assert len({CATALOG.fingerprint, swapped.fingerprint, joined.fingerprint}) == 3
    retitled = Catalog(CATALOG.item_ids, ("", "", ""), CATALOG.genres)
    assert retitled.fingerprint == CATALOG.fingerprint


def test_reading_returns_what_was_written(tmp_path):
    CATALOG.write(tmp_path / "catalog.parquet")
    assert Catalog.read(tmp_path / "catalog.parquet") == CATALOG


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="2 ids, 1 titles and 2 genres"):
        Catalog(("a", "b"), ("a",), ("", ""))
