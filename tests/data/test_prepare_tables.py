"""Tables in memory as logs: data frames, slices, and the messages of those that are none."""

import errno

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert4rec_jax.data.prepare import prepare
from bert4rec_jax.errors import TemporaryError, UserError


class Frame:
    """A data frame of some library: what Arrow can read."""

    def __init__(self, **columns):
        self.table = pa.table(columns)

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def test_a_data_frame_is_a_log(tmp_path):
    when = np.array(["2024-01-01", "2024-01-03", "2024-01-02"], "datetime64[ns]")
    ids = pa.array(["u", "u", "u"])
    if int(pa.__version__.split(".")[0]) >= 25:  # earlier ones crash at string views of a stream
        ids = ids.cast(pa.string_view())
    frame = Frame(who=ids, what=pa.array(["a", "b", "c"]).dictionary_encode(), when=when)
    columns = {"user": "who", "item": "what", "timestamp": "when"}
    minima = {"min_user_interactions": 1, "min_item_interactions": 1}
    store = prepare(frame, tmp_path / "store", columns=columns, **minima).store
    histories = [store.catalog.item_id(int(token)) for token in store.tokens]
    assert (store.user_ids(), histories) == (["u"], ["a", "c", "b"])
    assert store.manifest["source"]["name"] == "table"
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    prepare(pa.table({"user_id": ["u"], "item_id": ["a"]}), tmp_path / "more", **minima)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (
            Frame(user_id=[1]),
            {"titles": Frame(id=[1])},
            "titles is of type Frame; expected the",
        ),
        (3, {}, "the log is of type int; expected a path, the name of a data set, or a table"),
        (Frame(user_id=["u"]), {}, "no column 'item_id' for the item"),
        (Frame(user_id=["u"]), {"format": "csv"}, "the format 'csv' is one of files"),
        (
            Frame(user_id=["u"]),
            {"columns": {"users": "u"}},
            "columns has the key 'users'; expected",
        ),
        (
            "log.csv",
            {"columns": ["user_id"]},
            "columns is of type list; expected Columns, or a dict",
        ),
        (
            "log.csv",
            {"min_item_interactions": "5"},
            "min_item_interactions is '5'; expected a whole number",
        ),
        ("log.csv", {"format": "parqet"}, "the format is 'parqet'; expected one of movielens-dat"),
    ],
)
def test_sources_that_are_no_log(tmp_path, monkeypatch, source, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text("user_id,item_id\nu,i\n")
    with pytest.raises(UserError, match=message):
        prepare(source, tmp_path / "store", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_a_table_that_cannot_be_kept_beside_the_store(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/store: .*choose another folder"):
        prepare(Frame(user_id=["u"], item_id=["a"]), tmp_path / "file" / "store")


def test_text_of_polars(tmp_path):
    """Its texts are views, also in lists and as values of categories."""
    views = pa.array(["a", "b"], pa.string_view())
    category = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.uint32()), views)
    minima = {"min_user_interactions": 1, "min_item_interactions": 1}
    frame = Frame(user_id=category, item_id=category, timestamp=[1, 2, 3])
    assert prepare(frame, tmp_path / "one", **minima).store.user_ids() == ["a", "b"]
    lists = pa.LargeListArray.from_arrays(pa.array([0, 2, 2], pa.int64()), views)
    grouped = Frame(user_id=views, item_id=lists, timestamp=[[1, 2], []])
    store = prepare(grouped, tmp_path / "two", **minima).store
    assert (store.user_ids(), store.catalog.item_ids) == (["a"], ("a", "b"))


def test_a_full_disk_while_a_table_is_read_stays_one(tmp_path, monkeypatch):
    """So scripts may try again (status 75)."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(TemporaryError, match="No space left on device"):
        prepare(Frame(user_id=["u"], item_id=["a"]), tmp_path / "store")


def test_messages_about_a_table_name_it(tmp_path):
    with pytest.raises(
        UserError, match=r"^the table has no column 'item_id' .*columns=\{'item': NAM"
    ):
        prepare(Frame(user_id=["u"]), tmp_path / "store")
    with pytest.raises(UserError, match=r"^the table, row 2: the user id is empty"):
        prepare(Frame(user_id=["u", None], item_id=["a", "b"]), tmp_path / "store")
    with pytest.raises(
        UserError, match="the unit of times is 'msec'; expected one of s, ms, us, ns"
    ):
        prepare(Frame(user_id=["u"]), tmp_path / "store", columns={"unit": "msec"})
    with pytest.raises(UserError, match="the name of a column is 0; expected text"):
        prepare(Frame(user_id=["u"]), tmp_path / "store", columns={"user": 0})


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_a_slice_of_a_table_with_lists(tmp_path, kind):
    lists = pa.array([["x", "y"], ["x"], None, [], ["z", "x"]], kind(pa.string()))
    table = pa.table({"user_id": ["a", "b", "c", "d", "e"], "item_id": lists})
    minima = {"min_user_interactions": 1, "min_item_interactions": 1}
    made = prepare(table.slice(1, 4), tmp_path / "store", **minima)
    assert (made.report.interactions, made.report.empty_histories) == (3, 2)
    assert sorted(made.store.user_ids()) == ["b", "e"]


def test_two_columns_of_one_name_in_a_table(tmp_path):
    columns = [pa.array(["a", "b"]), pa.array(["q", "q"]), pa.array(["x", "y"])]
    table = pa.table(columns, names=["user_id", "user_id", "item_id"])
    with pytest.raises(UserError, match="the table has two columns 'user_id'"):
        prepare(table, tmp_path / "store")
