import numpy as np
import pyarrow as pa
import pytest

from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.errors import UserError
from bert4rec_jax.serving.requests import RequestReader, check_columns

CATALOG = Catalog(("007", "12", "13"), ("A", "B", "C"), ("", "", ""))  # tokens 2, 3, 4
READER = RequestReader(CATALOG)
IDS = pa.list_(pa.string())


def table(history, **columns):
    arrays = {"user_id": pa.array([f"u{row}" for row in range(len(history))])}
    arrays["history"] = pa.array(history, IDS) if isinstance(history, list) else history
    for name, values in columns.items():
        kind = pa.list_(pa.float64()) if name == "ratings" else IDS
        arrays[name] = pa.array(values, kind) if isinstance(values, list) else values
    return pa.table(arrays)


def read(*args, **columns):
    return READER.read(table(*args, **columns), lambda row: f"in.parquet, row {100 + row}")


def listed(ragged):
    return [ragged[row].tolist() for row in range(len(ragged))]


def test_ids_become_tokens_and_the_rest_is_counted():
    found = read(
        [["007", "x", "13"], [], None, ["y", None]],
        candidates=[["12", "z"], None, [], ["13"]],
        exclude=[["q"], ["007"], [], []],
    )
    assert listed(found.histories) == [[2, 4], [], [], []]
    assert listed(found.candidates) == [[3], [], [], [4]]
    assert listed(found.excluded) == [[], [2], [], []]
    assert found.counts == {
        "requests": 4,
        "null_lists": 2,
        "empty_histories": 3,
        "history_items": 5,
        "unknown_history_items": 3,
        "candidates": 3,
        "unknown_candidates": 1,
        "unknown_excluded_items": 1,
    }


def test_without_candidates_the_whole_catalog_is_meant():
    assert read([["007"]]).candidates is None


@pytest.mark.parametrize(
    "history",
    [
        pa.array([["12"], ["13", "12"]], pa.large_list(pa.large_string())),
        pa.array([[12], [13, 12]], pa.list_(pa.int64())),
        pa.array([["0"], ["12"], ["13", "12"], ["1"]], IDS).slice(1, 2),
        pa.ListArray.from_arrays(
            pa.array([0, 1, 3], pa.int32()), pa.array(["12", "13", "12"]).dictionary_encode()
        ),
    ],
    ids=["large", "numbers", "a slice", "dictionary"],
)
def test_every_form_of_lists(history):
    assert listed(read(history).histories) == [[3], [4, 3]]
    check_columns(table(history).schema, "in.parquet")


def test_lists_in_several_chunks():
    """They stay apart, as one array could not hold the text of all; each has its own dictionary."""
    offsets = pa.array([0, 1, 3], pa.int32())
    ids = pa.array(["12", "13", "x"]), pa.array(["007", "y", "12"])
    encoded = pa.chunked_array(
        [pa.ListArray.from_arrays(offsets, values.dictionary_encode()) for values in ids]
    )
    found = read(encoded, ratings=[[1], [2, 3], [4], [5, 6]])
    assert listed(found.histories) == [[3], [4], [2], [3]]
    assert found.ratings.tolist() == [1, 2, 4, 6]
    texts = pa.chunked_array([[["12"], ["13", "x"]], [["007"], None]], IDS)
    found = read(texts, exclude=texts)
    assert listed(found.histories) == listed(found.excluded) == [[3], [4], [2], []]
    assert found.counts["null_lists"] == 2 and found.counts["unknown_history_items"] == 1


def test_lists_of_one_size():
    history = pa.array([["12", "13"]], pa.list_(pa.string(), 2))
    assert listed(read(history).histories) == [[3, 4]]


def test_lists_that_are_all_empty():
    """Writers do not know of what."""
    nothing = pa.array([[], None], pa.list_(pa.null()))
    asked = table([["007"], ["12"]]).append_column("exclude", nothing)
    asked = asked.append_column("candidates", nothing)
    check_columns(asked.schema, "in.parquet")
    found = READER.read(asked, str)
    assert listed(found.excluded) == listed(found.candidates) == [[], []]


def test_ratings_are_those_of_the_items_that_are_known():
    found = read([["007", "x", "13"], ["12"]], ratings=[[9.5, 1.0, None], None])
    np.testing.assert_array_equal(found.ratings, [9.5, np.nan, np.nan])
    assert found.ratings.dtype == np.float32


def test_times_are_those_of_the_items_that_are_known():
    times = pa.array([[1, 2, 3], None], pa.list_(pa.int64()))
    asked = table([["007", "x", "13"], ["12"]], timestamps=times)
    found = RequestReader(CATALOG, times=True, ended=9).read(asked, str)
    at, then = found.moments()
    assert at.tolist() == [9, 9]
    assert then.tolist() == [1, 3, 9]  # that of the request where it is not known


def test_ratings_that_are_all_null_are_none():
    asked = table([["007"], ["12"]]).append_column("ratings", pa.nulls(2))
    check_columns(asked.schema, "in.parquet")
    assert np.isnan(READER.read(asked, str).ratings).all()


def test_ratings_have_to_fit():
    with pytest.raises(UserError, match=r"in.parquet, row 101: 1 ratings for 2 items in history"):
        read([["007"], ["12", "13"]], ratings=[[1.0], [2.0]])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_id": ["a"]}, "has no column 'history'; its columns are 'user_id'"),
        ({"history": [["1"]]}, "has no column 'user_id'"),
        ({"user_id": [1.5], "history": [["1"]]}, "'user_id' is of type double; expected text or"),
        ({"user_id": ["a"], "history": ["1"]}, "'history' is of type string; expected lists of"),
        (
            {"user_id": ["a"], "history": [[1.5]]},
            r"'history' is of type list<.*double.*>; expected",
        ),
        (
            {"user_id": ["a"], "history": [["1"]], "ratings": [["5"]]},
            "'ratings' .* lists of numbers",
        ),
        ({"user_id": ["a"], "history": [["1"]], "candidates": ["1"]}, "'candidates' is of type"),
        ({"user_id": ["a"], "history": [["1"]], "exclude": [[True]]}, "'exclude' is of type"),
    ],
)
def test_wrong_columns_are_named(columns, message):
    with pytest.raises(UserError, match=f"in.parquet.*{message}"):
        check_columns(pa.table(columns).schema, "in.parquet")
