import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert4rec_jax.errors import UserError
from bert4rec_jax.serving.request_file import RequestFile


def rows(start, stop):
    users = pa.array(range(start, stop), pa.int64())
    history = pa.array([[str(user)] for user in range(start, stop)], pa.list_(pa.string()))
    return pa.table({"note": users, "user_id": users, "history": history})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "in.parquet"
    pq.write_table(rows(0, 10), path, row_group_size=3)
    return path


def test_shards_are_equal_whatever_the_row_groups(file):
    opened = RequestFile.open(file)
    assert (opened.rows, opened.duplicate_users) == (10, 0)
    assert opened.schema.names == ["user_id", "history"]
    for first in range(3):
        found = [
            (number, table["user_id"].to_pylist()) for number, table in opened.shards(4, first)
        ]
        assert found == [(0, [0, 1, 2, 3]), (1, [4, 5, 6, 7]), (2, [8, 9])][first:]


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    for name, start in (("b.parquet", 5), ("a.parquet", 0), ("c.parquet", 10)):
        pq.write_table(rows(start, start + 5), tmp_path / name)
    for hidden in (".a.parquet", "_a.parquet"):
        (tmp_path / hidden).write_text("")
    opened = RequestFile.open(tmp_path)
    found = [table["user_id"].to_pylist() for _, table in opened.shards(6, 1)]
    assert found == [[6, 7, 8, 9, 10, 11], [12, 13, 14]]


def test_no_requests_are_one_empty_shard(tmp_path):
    pq.write_table(rows(0, 0), tmp_path / "in.parquet")
    opened = RequestFile.open(tmp_path / "in.parquet")
    assert [(number, len(table)) for number, table in opened.shards(4, 0)] == [(0, 0)]


def test_repeated_users_are_counted(tmp_path):
    pq.write_table(pa.concat_tables([rows(0, 5), rows(3, 6)]), tmp_path / "in.parquet")
    assert RequestFile.open(tmp_path / "in.parquet").duplicate_users == 2
    pq.write_table(rows(-2, 1), tmp_path / "in.parquet")
    assert RequestFile.open(tmp_path / "in.parquet").duplicate_users == 0


def test_content_makes_the_checksum(file, tmp_path):
    other = tmp_path / "moved.parquet"
    other.write_bytes(file.read_bytes())
    assert RequestFile.open(other).sha256 == RequestFile.open(file).sha256
    pq.write_table(rows(1, 11), other)
    assert RequestFile.open(other).sha256 != RequestFile.open(file).sha256


def test_two_columns_of_a_feature_are_refused(tmp_path):
    table = rows(0, 3)
    columns = [*table.columns, table["note"], table["note"]]
    names = [*table.column_names, "age", "age"]
    pq.write_table(pa.table(columns, names=names), tmp_path / "in.parquet")
    assert RequestFile.open(tmp_path / "in.parquet").ignored == ("note", "age", "age")
    with pytest.raises(UserError, match=r"in.parquet has 2 columns called 'age'; expected one"):
        RequestFile.open(tmp_path / "in.parquet", ["age"])


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def damage(path):
    content = bytearray(path.read_bytes())
    footer = 8 + int.from_bytes(content[-8:-4], "little")
    content[4:-footer] = bytes(len(content) - footer - 4)
    path.write_bytes(content)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def null_user(path):
    users = pa.array(["a", "b", None])
    pq.write_table(pa.table({"user_id": users, "history": [["1"]] * 3}), path)


def latin(users, items):
    """Requests with text that is not UTF-8, as other programs may write."""

    def write(path):
        found = [pa.array(x, pa.binary()).view(pa.string()) for x in (users, items)]
        history = pa.ListArray.from_arrays(list(range(len(items) + 1)), found[1])
        table = pa.table({"user_id": found[0], "history": history})
        pq.write_table(table, path, row_group_size=2)

    return write


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "does not exist; expected requests in Parquet or JSON Lines"),
        (lambda path: path.write_text("user_id,history\n"), "is not a whole Parquet file"),
        (pipe, "is no regular file, and a pipe can be read only once; write what"),
        (cut, "is not a whole Parquet file"),
        (damage, "is not a whole Parquet file"),
        (null_user, "row 2: column 'user_id' is null"),
        (
            latin([b"a", b"b", b"\xe9"], [b"1"] * 3),
            "row 2: column 'user_id' holds text that is not",
        ),
        (latin([b"a", b"b", b"c"], [b"1", b"2", b"\xe9"]), "row 2: column 'history' holds text"),
    ],
)
def test_unreadable_requests(file, change, message):
    change(file)
    with pytest.raises(UserError, match=message) as error:
        for _ in RequestFile.open(file).shards(4, 0):
            pass
    assert str(file) in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_file_that_has_other_rows_by_now_is_refused(file):
    opened = RequestFile.open(file)
    pq.write_table(rows(0, 9), file)
    with pytest.raises(UserError, match="changed while its requests were answered"):
        next(opened.shards(4, 0))


def test_columns_of_a_folder_may_differ_in_whether_null_is_allowed(tmp_path):
    table = rows(0, 2).select(["user_id", "history"])
    pq.write_table(table, tmp_path / "a.parquet")
    strict = pa.schema([field.with_nullable(False) for field in table.schema])
    pq.write_table(rows(2, 4).select(["user_id", "history"]).cast(strict), tmp_path / "b.parquet")
    ((_, found),) = RequestFile.open(tmp_path).shards(9, 0)
    assert found["user_id"].to_pylist() == [0, 1, 2, 3]


def test_folders_without_requests_or_with_two_kinds(tmp_path):
    with pytest.raises(UserError, match=r"is a folder without \*.parquet files.* cat .*/\*.jsonl"):
        RequestFile.open(tmp_path)
    pq.write_table(rows(0, 5), tmp_path / "a.parquet")
    table = pa.table({"user_id": ["x"], "history": [["1"]]})
    pq.write_table(table, tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b.parquet and .*a.parquet have different columns"):
        RequestFile.open(tmp_path)
