import pytest

from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.errors import UserError
from bert4rec_jax.serving.lookup import find_item

TITLES = {
    "10": "The Matrix (1999)",
    "20": "Heat (1995)",
    "30": "Heat (1986)",
    "40": "Toy Story (1995)",
    "50": "Toy Story 2 (1999)",
    "60": "1984",
    "1984": "Dune (1984)",
    "70": "Solaris",
    "80": "Solaris",
}
CATALOG = Catalog(tuple(TITLES), tuple(TITLES.values()), ("",) * len(TITLES))


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("10", "10"),
        ("1984", "1984"),  # an id before a title
        ("The Matrix (1999)", "10"),
        ("  the  MATRIX (1999)", "10"),
        ("the matrix", "10"),
        ("toy story", "40"),
        ("Heat (1986)", "30"),
        ("teh matrix", "10"),
        ("Toy Stroy 2", "50"),
        ("Teh Matrix (1999)", "10"),
    ],
)
def test_what_is_meant(text, item):
    assert find_item(CATALOG, text) == CATALOG.token(item)


def test_items_without_titles_are_not_taken_for_each_other():
    ids = ("A-0012/l", "A-0132/l", "B-7")
    catalog = Catalog(ids, ids, ("",) * 3)
    assert find_item(catalog, "a-0012/L") == catalog.token("A-0012/l")
    with pytest.raises(UserError, match=r"no title is clearly 'A-0072/l'.*\n  A-0012/l"):
        find_item(catalog, "A-0072/l")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "heat",
            ["'heat' is the title of 2 items", "Heat (1995)  (id 20)", "Heat (1986)  (id 30)"],
        ),
        ("Solaris", ["is the title of 2 items", "(id 70)", "(id 80)"]),
        ("Casablanca", ["no title is clearly 'Casablanca'; the nearest are"]),
        ("Teh Matrix (2003)", ["no title is clearly", "The Matrix (1999)  (id 10)"]),
        ("Heat (19)", ["no title is clearly", "Heat (1995)  (id 20)", "(id 30)"]),
    ],
)
def test_what_could_be_several_is_asked_back(text, parts):
    with pytest.raises(UserError) as error:
        find_item(CATALOG, text)
    for part in parts:
        assert part in str(error.value)
