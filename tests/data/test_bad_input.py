"""Every kind of broken log, and the one message that it ends in."""

import bz2
import gzip
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample import whole

from bert4rec_jax.data import delimited, parquet
from bert4rec_jax.data.columns import Columns
from bert4rec_jax.data.titles import read_titles
from bert4rec_jax.errors import UserError

GOOD = {
    "ratings.dat": "1::7::4::978300760\n",
    "u.data": "1\t7\t4\t978300760\n",
    "ratings.csv": "userId,movieId,rating,timestamp\n1,7,4,978300760\n",
    "log.csv": "user_id,item_id,rating,timestamp\n1,7,4,978300760\n",
    "pairs.txt": "1 7\n",
}


def refused(path, content, **options):
    """The message with which a file is refused."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as caught:
        whole(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert "CSV" not in message
    assert "Arrow" not in message
    return message.removeprefix(str(path))


STRUCTURE = {
    "ratings.dat": (
        "1::7::4\n",
        "'1::7::4' has 3 fields, expected 'user::item::rating::timestamp'",
    ),
    "u.data": ("1\t7\t4\n", r"'1\t7\t4' has 3 fields, expected 'user\titem\trating\ttimestamp'"),
    "ratings.csv": ("1,7\n", "'1,7' has 2 fields, expected 'userId,movieId,rating,timestamp'"),
    "log.csv": ("1,7,4,5,6\n", "'1,7,4,5,6' has 5 fields, expected 'user_id,item_id,rating,timest"),
    "pairs.txt": ("1 7 4\n", "'1 7 4' has 3 fields, expected 'user item'"),
}


@pytest.mark.parametrize("name", STRUCTURE)
def test_a_line_with_another_number_of_fields_is_named(tmp_path, name):
    line, expected = STRUCTURE[name]
    good = GOOD[name]
    header = good.count("\n") - 1
    row = good.splitlines(keepends=True)[-1]
    # A blank line counts as a line, though not as a row.
    message = refused(tmp_path / name, good + "\n" + row + line + row)
    assert message.startswith(f", line {4 + header}: {expected}")
    assert message.endswith("; fix the line, or name another format")


@pytest.mark.parametrize("name", STRUCTURE)
def test_a_last_line_that_is_cut_off_is_told_apart(tmp_path, name):
    message = refused(tmp_path / name, GOOD[name] * 1 + GOOD[name].splitlines()[-1][:1])
    assert "has 1 field, expected" in message
    assert message.endswith("; the file may be cut off: get a whole copy of it")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ratings.dat", "1,7,4,978300760\n", ", line 1: '1,7,4,978300760' has 1 field, expected"),
        ("ratings.dat", "1::7::4::5\n1:7:4:5:6:7:8\n", ", line 2: '1:7:4:5:6:7:8' has a stray col"),
        ("u.data", "1,7,4,978300760\n", ", line 1: '1,7,4,978300760' has 1 field, expected"),
        ("log.csv", "user_id;item_id\n1;7\n", " is cut by semicolons ('user_id;item_id'); save it"),
        ("log.tsv", "user_id,item_id\n1,7\n", " has no column 'user_id' for the user; its columns"),
    ],
)  # fmt: skip
def test_another_delimiter(tmp_path, name, content, message):
    assert refused(tmp_path / name, content).startswith(message)


def test_the_line_is_right_far_into_a_file_of_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 128)
    rows = GOOD["ratings.dat"] * 1000
    message = refused(tmp_path / "ratings.dat", rows + "1::7::x::5\n" + rows)
    assert message.startswith(", line 1001: the rating 'x' is not valid")
    message = refused(tmp_path / "ratings.dat", rows + "1::7::5\n" + rows)
    assert message.startswith(", line 1001: '1::7::5' has 3 fields")


@pytest.mark.parametrize("name", ["ratings.dat", "u.data", "log.csv", "pairs.txt"])
def test_bytes_that_are_not_utf8_are_shown_with_their_line(tmp_path, name):
    row = GOOD[name].splitlines(keepends=True)[-1].encode()
    line = GOOD[name].count("\n") + 1
    message = refused(tmp_path / name, GOOD[name].encode() + row.replace(b"7", b"caf\xe9", 1) + row)
    assert message.startswith(f", line {line}: b'1")
    assert r"caf\xe9" in message
    assert message.endswith(" is not UTF-8 text; convert the file to UTF-8")


def test_names_of_columns_that_are_not_utf8(tmp_path):
    content = "ü,item,time\na,x,1\n".encode("latin-1")
    message = refused(tmp_path / "log.csv", content, columns=Columns("ü", "item", "time", None))
    assert (
        message == r": the name of a column, b'\xfc', is not UTF-8 text; convert the file to UTF-8"
    )


@pytest.mark.parametrize("name", ["log.csv", "log.tsv.gz", "log.jsonl", "log.csv.xz"])
def test_utf16(tmp_path, name):
    content = GOOD["log.csv"].encode("utf-16")
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(name[-3:], bytes)
    assert refused(tmp_path / name, pack(content)) == " is UTF-16 text; convert the file to UTF-8"
    with pytest.raises(UserError, match="is UTF-16 text"):
        read_titles(tmp_path / name)


def test_names_of_columns_without_a_row_or_the_end_of_a_line(tmp_path):
    for names in ("user_id,item_id,timestamp\n", "user_id,item_id,timestamp"):
        assert refused(tmp_path / "log.csv", names) == " is empty: it holds no interaction"


@pytest.mark.parametrize("name", ["ratings.dat", "u.data", "ratings.csv", "log.csv"])
@pytest.mark.parametrize(
    ("timestamp", "message"),
    [
        ("soon", "timestamp 'soon' is not valid; expected seconds since 1970, or a date such as 2"),
        ("", "timestamp is empty; expected seconds since 1970"),
        ("-5", "timestamp '-5' lies before 1970; expected seconds since 1970"),
        ("978300760000", "timestamp '978300760000' lies beyond the year 2100; expected seconds "
         "since 1970: if these are milliseconds, prepare the log with --timestamp-unit ms "
         "(in Python: columns={'unit': 'ms'})"),
        ("978300760000000", "if these are microseconds, prepare the log with --timestamp-unit us"),
        ("978300760000000000", "if these are nanoseconds, prepare the log with --timestamp-unit "),
        ("4133980800", "timestamp '4133980800' lies beyond the year 2100; expected seconds"),
        ("9" * 30, "lies beyond the year 2100; expected seconds since 1970: convert the column"),
        ("1969-12-31", "timestamp '1969-12-31' lies before 1970"),
        ("2024-13-01", "timestamp '2024-13-01' is not valid"),
        ("2101-01-01", "timestamp '2101-01-01' lies beyond the year 2100"),
    ],
)  # fmt: skip
def test_timestamps(tmp_path, name, timestamp, message):
    row = GOOD[name].splitlines(keepends=True)[-1]
    line = GOOD[name].count("\n") + 2
    content = GOOD[name] + row + row.replace("978300760", timestamp) + row
    found = refused(tmp_path / name, content)
    assert found.startswith(f", line {line}: the timestamp ")
    assert message in found


@pytest.mark.parametrize("name", ["ratings.dat", "u.data", "ratings.csv", "log.csv"])
@pytest.mark.parametrize("rating", ["nan", "NaN", "inf", "-inf", "1e60", "good", " ", "4,5", "4 5"])
def test_ratings(tmp_path, name, rating):
    if "," in rating and name.endswith(".csv"):
        rating = f'"{rating}"'
    row = GOOD[name].splitlines(keepends=True)[-1]
    sign = next(sign for sign in ("::", "\t", ",") if sign in row)
    bad = sign.join([*row.split(sign)[:2], rating, row.split(sign)[3]])
    message = refused(tmp_path / name, GOOD[name] + bad + row)
    shown = rating.strip('"')
    line = GOOD[name].count("\n") + 1
    assert message.startswith(
        f", line {line}: the rating {shown!r} is not valid; expected a finite number"
    )
    assert message.endswith(": fix or remove the row")


@pytest.mark.parametrize("name", ["ratings.dat", "u.data", "ratings.csv"])
def test_movielens_has_no_unrated_rows(tmp_path, name):
    row = GOOD[name].splitlines(keepends=True)[-1]
    sign = next(sign for sign in ("::", "\t", ",") if sign in row)
    bad = sign.join([*row.split(sign)[:2], "", row.split(sign)[3]])
    message = refused(tmp_path / name, GOOD[name] + bad)
    assert "the rating is empty; expected a finite number: fix" in message


@pytest.mark.parametrize(
    ("name", "bad", "role"),
    [
        ("ratings.dat", "::7::4::5\n", "user"),
        ("ratings.dat", "1::::4::5\n", "item"),
        ("u.data", "\t7\t4\t5\n", "user"),
        ("ratings.csv", "1,,4,5\n", "item"),
        ("log.csv", ",7,4,5\n", "user"),
    ],
)
def test_empty_ids(tmp_path, name, bad, role):
    row = GOOD[name].splitlines(keepends=True)[-1]
    message = refused(tmp_path / name, GOOD[name] + row + bad + row)
    assert message.startswith(
        f", line {GOOD[name].count(chr(10)) + 2}: the {role} id is empty; every"
    )


def test_a_row_after_a_field_of_several_lines_has_the_right_line(tmp_path):
    content = 'user_id,item_id,rating,timestamp,note\n1,7,4,5,"a\nb\n\nc"\n\n1,8,x,5,d\n'
    assert refused(tmp_path / "log.csv", content).startswith(
        ", line 7: the rating 'x' is not valid"
    )


def test_a_quote_that_is_never_closed(tmp_path):
    content = GOOD["log.csv"] + '1,"7,4,5\n' + "1,7,4,5\n" * 1_200_000
    message = refused(tmp_path / "log.csv", content)
    assert message.startswith(": cannot cut the text after line 2 into fields")
    assert message.endswith("; look for a quote that is never closed")


def test_a_quote_that_would_swallow_the_last_rows(tmp_path):
    head, rows = "user_id,timestamp,item_id\n", '1,7,a\n\n1,8,"b\n1,9,c\n1,10,d\n'
    message = refused(tmp_path / "log.csv", head + rows)
    assert message.startswith(", line 4: a quote is never closed, so all that follows is one field")
    assert refused(tmp_path / "log.csv", head + '1,7,"a').startswith(", line 2: a quote is never")
    message = refused(tmp_path / "log.csv", head + rows + "1,10,d\n" * 100_000)
    assert message.startswith(": cannot cut the text after line 2 into fields")
    (tmp_path / "log.csv").write_text(head + '1,7,"a\nb"\n1,8,15" tube\n')  # quotes: odd, closed
    assert whole(tmp_path / "log.csv").item_ids.to_pylist() == ["a\nb", '15" tube']


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("user,item_id\n1,2\n", None, "no column 'user_id' for the user; its columns are 'user', "),
        ("user_id,movie\n1,2\n", None, "no column 'item_id' for the item; its columns are 'user_i"),
        ("user_id,item_id,ts\n1,2,3\n", None, "no column 'timestamp' for the timestamp; its "
         "columns are 'user_id', 'item_id', 'ts': prepare it with `bert4rec prepare "
         "--timestamp-column NAME` (in Python: columns={'timestamp': NAME}), or None if the rows "
         "are in time order"),
        ("user_id,item_id\n1,2\n", Columns(timestamp="ts"), "no column 'ts' for the timestamp"),
        ("user_id,item_id\n1,2\n", Columns(rating="stars"), "no column 'stars' for the rating"),
        ("user_id,item_id,item_id\n1,2,3\n", None, "two columns 'item_id' for the item"),
    ],
)  # fmt: skip
def test_missing_columns(tmp_path, content, columns, message):
    assert f" has {message}" in refused(tmp_path / "log.csv", content, columns=columns)


def test_movielens_csv_needs_all_its_columns(tmp_path):
    message = refused(tmp_path / "r.csv", "userId,movieId,rating\n1,2,3\n", format="movielens-csv")
    assert message.startswith(" has no column 'timestamp' for the timestamp")


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("content", ["", "\n\n", "\r\n"])
def test_empty_files(tmp_path, name, content):
    assert refused(tmp_path / name, content).startswith(" is empty")


@pytest.mark.parametrize("name", ["ratings.csv", "log.csv"])
def test_a_header_alone_is_empty(tmp_path, name):
    content = GOOD[name].splitlines(keepends=True)[0]
    assert refused(tmp_path / name, content) == " is empty: it holds no interaction"


def test_column_names_of_a_format_that_has_its_own(tmp_path):
    message = refused(tmp_path / "ratings.dat", GOOD["ratings.dat"], columns=Columns("a", "b"))
    assert message.startswith(" is read as movielens-dat, whose columns are known; leave out")


@pytest.mark.parametrize(
    ("ending", "pack"), [("xz", lzma.compress), ("gz", gzip.compress), ("bz2", bz2.compress)]
)
def test_a_cut_off_packed_file(tmp_path, ending, pack):
    whole = pack("".join(f"{i}::7::4::5\n" for i in range(20_000)).encode())
    for content in (whole[: len(whole) // 2], whole[:-4], b"not packed at all"):
        message = refused(tmp_path / f"ratings.dat.{ending}", content)
        assert message == " is cut off or damaged; get a whole copy of it"


def test_a_folder_in_place_of_a_file(tmp_path):
    (tmp_path / "ratings.csv").mkdir()
    with pytest.raises(UserError, match=r"ratings\.csv holds none of"):
        whole(tmp_path / "ratings.csv")


def write(path, **columns):
    pq.write_table(pa.table({"user_id": ["a"] * 3, "item_id": ["x"] * 3} | columns), path)
    return path.read_bytes()


def latin(values):
    """A column of text with bytes that are not UTF-8, which other programs may write."""
    return pa.array(values, pa.binary()).view(pa.string())


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_id": ["a", None, "b"]}, ", row 2: the user id is empty; every row needs"),
        ({"item_id": ["a", "b", ""]}, ", row 3: the item id is empty; every row needs"),
        ({"item_id": [None, 2, 3]}, ", row 1: the item id is empty; every row needs"),
        ({"item_id": [1.5, 2.0, 3.0]}, ", row 1: the item id 1.5 is of type double; expected text "
         "or whole numbers: convert the column"),
        ({"rating": [1.0, float("nan"), None]}, ", row 2: the rating nan is not valid; expected a"),
        ({"rating": [1.0, 2.0, float("inf")]}, ", row 3: the rating inf is not valid; expected a "),
        ({"rating": [1.0, 1e60, 3.0]}, ", row 2: the rating 1e+60 is not valid; expected a finite"),
        ({"rating": ["1", "2", "nan"]}, ", row 3: the rating 'nan' is not valid"),
        ({"rating": [True, False, True]}, ", row 1: the rating True is of type bool; expected a "
         "finite number (or nothing, for unrated): convert the column"),
        ({"timestamp": [1, None, 3]}, ", row 2: the timestamp is empty; expected seconds since 19"),
        ({"timestamp": [1, 2, -3]}, ", row 3: the timestamp -3 lies before 1970"),
        ({"timestamp": [1, 1_714_500_000_000, 2]}, ", row 2: the timestamp 1714500000000 lies bey"),
        ({"timestamp": pa.array([1, 2**64 - 1, 2], pa.uint64())}, ", row 2: the timestamp 1844674"),
        ({"timestamp": [1.0, 2.0, float("nan")]}, ", row 3: the timestamp nan is not valid"),
        ({"timestamp": ["1", "2024-05-01", "May"]}, ", row 3: the timestamp 'May' is not valid"),
        ({"timestamp": [[1], [2], [3]]}, ", row 1: the timestamp [1] is of type list<"),
        ({"timestamp": pa.array([1, -(2**60) - 5, 3], pa.timestamp("ns"))}, ", row 2: the timestam"
         "p '1933-06-20 "),
        ({"user_id": latin([b"a", b"b", b"\xe9"])}, ", row 3: column 'user_id' holds text that is "
         "not UTF-8; convert the column"),
        ({"item_id": latin([b"x", b"\xe9", b"x"]).dictionary_encode()}, ", row 2: column 'item_id'"
         " holds text that is not UTF-8"),
        ({"timestamp": latin([b"1", b"\xe9", b"3"])}, ", row 2: column 'timestamp' holds text "),
        ({"rating": pa.array([5, 5, 5], pa.timestamp("ns"))}, ", row 1: the rating '1970-01-01 00:"
         "00:00.000000005' is of type timestamp[ns]"),
    ],
)  # fmt: skip
def test_typed_values(tmp_path, monkeypatch, columns, message):
    content = write(tmp_path / "log.parquet", **columns)
    assert refused(tmp_path / "log.parquet", content).startswith(message)
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 2)
    assert refused(tmp_path / "log.parquet", content).startswith(message)


def test_columns_without_text_are_not_checked_for_it():
    """Arrow finds other faults too, such as a date with a time, which are no matter of text."""
    noon = pa.array([43_200_000], pa.int64()).view(pa.date64())
    parquet.require_text(noon, "released", lambda row: f"row {row}")


def test_lists_of_text_that_is_not_utf8(tmp_path):
    items = pa.ListArray.from_arrays([0, 2, 2, 4], latin([b"x", b"y", b"x", b"\xe9"]))
    pq.write_table(pa.table({"user_id": ["a", "b", "c"], "item_id": items}), tmp_path / "g.parquet")
    message = refused(tmp_path / "g.parquet", (tmp_path / "g.parquet").read_bytes())
    assert message.startswith(", row 3: column 'item_id' holds text that is not UTF-8")


def test_missing_columns_of_parquet(tmp_path):
    content = write(tmp_path / "log.parquet")
    message = refused(tmp_path / "log.parquet", content, columns=Columns("userId"))
    assert message.startswith(
        " has no column 'userId' for the user; its columns are 'user_id', 'item"
    )


def test_a_cut_off_parquet_file(tmp_path):
    content = write(tmp_path / "log.parquet")
    damaged = content[:4] + bytes(60) + content[64:]
    for broken in (content[:-20], content[: len(content) // 2], damaged):
        message = refused(tmp_path / "log.parquet", broken)
        assert message == " is not a whole Parquet file; if a copy was cut off, copy it again"


def test_an_empty_parquet_table(tmp_path):
    table = pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())})
    pq.write_table(table, tmp_path / "log.parquet")
    content = (tmp_path / "log.parquet").read_bytes()
    assert refused(tmp_path / "log.parquet", content) == " is empty: it holds no interaction"


def test_parts_with_other_columns(tmp_path):
    write(tmp_path / "a.parquet", timestamp=[1, 2, 3])
    write(tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b\.parquet has other columns than .*a\.parquet \("):
        whole(tmp_path)


def test_a_bad_row_in_a_later_part_is_counted_from_its_beginning(tmp_path):
    write(tmp_path / "a.parquet", rating=[1, 2, 3])
    write(tmp_path / "b.parquet", rating=["1", "x", "3"])
    with pytest.raises(UserError, match=r"b\.parquet, row 2: the rating 'x'"):
        whole(tmp_path)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"user": "x", "item": "x"}, "the column 'x' is named as user and as item; expected a "
         "column of its own for each: name another user or item column"),
        ({"timestamp": "user_id"}, "the column 'user_id' is named as user and as timestamp; "
         "expected a column of its own for each: name another user or timestamp column, or None if "
         "there is none"),
        ({"rating": "item_id"}, "is named as item and as rating"),
        ({"timestamp": "n", "rating": "n"}, "is named as timestamp and as rating"),
    ],
)  # fmt: skip
def test_one_column_in_two_roles(named, message):
    with pytest.raises(UserError) as caught:
        Columns(**named)
    assert message in str(caught.value)


def test_events_may_be_ratings(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,rating\nu,a,4\nu,b,1\nu,c,5\n")
    log = whole(tmp_path / "log.csv", columns=Columns(event="rating", events=("4", "5")))
    assert log.ratings.tolist() == [4.0, 5.0]
