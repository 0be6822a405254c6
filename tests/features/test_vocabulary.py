import pytest

from bert4rec_jax.features.vocabulary import Vocabulary

ROWS = [("Drama", "War"), ("Drama",), ("Comedy", "Drama", "Comedy"), ("War",), ()]


def fit(**options):
    return Vocabulary.fit(ROWS, **{"min_count": 1, "top": 9, "buckets": 0} | options)


def test_names_by_count_then_by_name():
    assert fit().names == ("Drama", "War", "Comedy")
    assert fit(min_count=2).names == ("Drama", "War")
    assert fit(top=1).names == ("Drama",)
    assert fit(min_count=4).names == ()
    assert Vocabulary.fit([("b", "a")], min_count=1, top=1, buckets=0).names == ("a",)


def test_the_order_of_items_and_of_names_changes_nothing():
    turned = [names[::-1] for names in ROWS[::-1]]
    assert Vocabulary.fit(turned, min_count=1, top=9, buckets=2) == fit(buckets=2)


def test_columns():
    vocabulary = fit(min_count=2)
    assert vocabulary.columns(("War", "Drama", "War", "Comedy")) == [0, 1]
    assert vocabulary.columns(()) == []
    assert vocabulary.width == 2


def test_codes_and_truths_have_a_column_however_they_are_written():
    """A column of whole numbers becomes 3.0 where pandas has seen one that is missing."""
    vocabulary = Vocabulary(("3", "true", "4.0", "False", "4"), buckets=1)
    assert [vocabulary.columns((name,)) for name in ("3.0", "3.00", "True", "TRUE")] == [
        [0], [0], [1], [1],
    ]  # fmt: skip
    assert [vocabulary.columns((name,)) for name in ("4", "4.0", "4.00", "false")] == [
        [4], [2], [2], [3],
    ]  # fmt: skip
    assert [vocabulary.columns((name,)) for name in ("3.5", "30", "truth", "v3.0")] == [[5]] * 4


def test_other_names_share_buckets_the_same_on_every_machine():
    vocabulary = fit(min_count=2, buckets=3)
    assert vocabulary.width == 5
    # SHA-256("Comedy") begins with 85f1c8c8e324b6be; the buckets follow two columns of names.
    assert vocabulary.columns(("Comedy",)) == [2 + 0x85F1C8C8E324B6BE % 3]
    assert all(2 <= vocabulary.columns((f"name {i}",))[0] < 5 for i in range(100))
    assert vocabulary.columns(tuple(f"name {i}" for i in range(100))) == [2, 3, 4]


@pytest.mark.parametrize("name", ["", "é", "\ud800"])
def test_any_text_has_a_bucket(name):
    assert fit(top=0, buckets=1).columns((name,)) == [0]
