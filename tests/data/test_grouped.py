"""Rows of lists: the same log as a row per interaction, and the messages of those that are not."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample import whole

from bert4rec_jax.data import parquet
from bert4rec_jax.data.columns import Columns
from bert4rec_jax.data.readers import read_log
from bert4rec_jax.errors import UserError


def put(folder, name="log.parquet", **columns):
    """A Parquet file, of two users with lists unless told otherwise."""
    table = {"user_id": ["a", "b"], "item_id": [["x", "y"], ["z"]], **columns}
    pq.write_table(pa.table(table), folder / name)
    return folder / name


def rows(log):
    """(user, item, timestamp, rating) as they were read; unrated is None."""
    users, items = log.user_ids.to_pylist(), log.item_ids.to_pylist()
    return [
        (users[u], items[i], t, None if np.isnan(r) else r)
        for u, i, t, r in zip(log.users, log.items, log.timestamps.tolist(), log.ratings.tolist())
    ]


@pytest.mark.parametrize("batch", [1 << 18, 1])
@pytest.mark.parametrize(
    ("items", "kind"),
    [
        (["x", "y", "z"], pa.list_(pa.string())),
        (["x", "y", "z"], pa.large_list(pa.large_string())),
        (["x", "y", "z"], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        ([7, 8, 9], pa.list_(pa.int16())),
    ],
)
def test_lists_by_hand(tmp_path, monkeypatch, items, kind, batch):
    monkeypatch.setattr(parquet, "_BATCH_ROWS", batch)
    file = put(
        tmp_path,
        item_id=pa.array([items[:2], items[2:]], kind),
        timestamp=pa.array([[5, 4], [6]], pa.list_(pa.timestamp("s"))),
        rating=[[4.5, None], [2]],
    )
    ids = [str(item) for item in items]
    assert rows(whole(file)) == [
        ("a", ids[0], 5, 4.5), ("a", ids[1], 4, None), ("b", ids[2], 6, 2.0),
    ]  # fmt: skip


def test_lists_of_fixed_size_under_other_names_and_without_times(tmp_path):
    pairs = pa.array([["x", "y"], ["y", "z"]], pa.list_(pa.string(), 2))
    pq.write_table(pa.table({"who": [7, 8], "seen": pairs}), tmp_path / "log.parquet")
    log = whole(tmp_path / "log.parquet", columns=Columns("who", "seen"))
    assert rows(log) == [
        ("7", "x", 0, None), ("7", "y", 1, None), ("8", "y", 2, None), ("8", "z", 3, None),
    ]  # fmt: skip
    assert not log.timed


def test_ratings_that_are_all_null_are_none(tmp_path):
    """Writers do not know of what: of values, of lists, or in one of several parts."""
    nothing = pa.array([[None, None], [None]], pa.list_(pa.null()))
    assert [row[3] for row in rows(whole(put(tmp_path, rating=nothing)))] == [None] * 3
    (tmp_path / "parts").mkdir()
    for name, ratings in (("a", pa.nulls(2)), ("b", pa.array([4.0, None]))):
        table = pa.table({"user_id": [name] * 2, "item_id": ["x", "y"], "rating": ratings})
        pq.write_table(table, tmp_path / "parts" / f"{name}.parquet")
    assert [row[3] for row in rows(whole(tmp_path / "parts"))] == [None, None, 4.0, None]


def test_empty_and_null_lists_hold_no_interaction_and_are_counted(tmp_path):
    file = put(
        tmp_path,
        user_id=["a", None, "c", "b"],
        item_id=[["x"], [], None, ["y"]],
        timestamp=[[1], None, [], [2]],
    )
    blocks = list(read_log(file).blocks(1))
    assert [block.empty_histories for block in blocks] == [2]
    assert rows(blocks[0].interactions) == [("a", "x", 1, None), ("b", "y", 2, None)]
    for kind in (pa.string(), pa.null(), pa.float64()):
        put(tmp_path, item_id=pa.array([[], None], pa.list_(kind)))
        with pytest.raises(UserError, match="is empty: it holds no interaction"):
            whole(file)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"timestamp": [[1, 2], [3, 4]]}, ", row 2: items: 1, timestamps: 2; the lists of a row"),
        ({"rating": [None, [3]]}, ", row 1: items: 2, ratings: 0; the lists of a row need"),
        ({"user_id": ["a", None]}, ", row 2, entry 1: the user id is empty"),
        ({"item_id": [["x", "y", None], ["z"]]}, ", row 1, entry 3: the item id is empty"),
        ({"rating": [["3", "4"], ["x"]]}, ", row 2, entry 1: the rating 'x' is not valid"),
        ({"timestamp": [[1, -2], [3]]}, ", row 1, entry 2: the timestamp -2 lies before 1970"),
        ({"item_id": [[["x"]], [["y"]]]}, ", row 1, entry 1: the item id ['x'] is of type list<"),
        ({"timestamp": [1, 2]}, ": the items 'item_id' are lists, a row per user, so the timestamp "
         "'timestamp' has to be a list in each row, but is of type int64: convert it, or name an"),
        ({"user_id": [["a"], ["b"]]}, ": the items 'item_id' are lists, a row per user, so the "
         "user 'user_id' has to be one value in each row, but is of type list<"),
    ],
)  # fmt: skip
def test_what_is_no_grouped_log(tmp_path, monkeypatch, columns, message):
    file = put(tmp_path, **columns)
    for batch in (1 << 18, 1):
        monkeypatch.setattr(parquet, "_BATCH_ROWS", batch)
        with pytest.raises(UserError) as caught:
            whole(file)
        assert str(caught.value).startswith(f"{file}{message}")


def test_parts_of_both_forms_are_refused(tmp_path):
    put(tmp_path, "a.parquet")
    put(tmp_path, "b.parquet", item_id=["x", "y"])
    with pytest.raises(
        UserError,
        match=r"b\.parquet has a row per interaction, but .*a\.parquet has a row per user, with li",
    ):
        whole(tmp_path)


def test_long_lists_are_read_a_few_users_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 100)
    items = [list(range(20))] * 30
    put(tmp_path, user_id=list(range(30)), item_id=items)
    (part,) = read_log(tmp_path).parts
    assert [len(chunk.users) for chunk in part.chunks()] == [100] * 6


@pytest.mark.parametrize("empty", ["a.parquet", "z.parquet"])
@pytest.mark.parametrize("users", [[], ["c", "d"]])
def test_a_part_without_an_item_has_the_form_of_the_others(tmp_path, empty, users):
    """pandas writes columns without a value as columns without a type."""
    put(tmp_path)
    columns = {"user_id": pa.array(users, pa.string()), "item_id": pa.nulls(len(users))}
    pq.write_table(pa.table(columns), tmp_path / empty)
    log = whole(tmp_path)
    assert sorted(log.item_ids.to_pylist()) == ["x", "y", "z"] and len(log) == 3
