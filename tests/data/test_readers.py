import bz2
import datetime
import gzip
import lzma
from importlib import resources

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample import whole, write_parquet

from bert4rec_jax.data import delimited, parquet
from bert4rec_jax.data.columns import Columns
from bert4rec_jax.data.readers import read_log
from bert4rec_jax.errors import UserError

WHEN = 1_714_500_000
WHEN_WRITTEN = "2024-04-30 18:00:00"  # UTC


def rows(log):
    """(user, item, timestamp, rating) as they were read; unrated is None."""
    users, items = log.user_ids.to_pylist(), log.item_ids.to_pylist()
    return [
        (users[u], items[i], t, None if np.isnan(r) else r)
        for u, i, t, r in zip(log.users, log.items, log.timestamps.tolist(), log.ratings.tolist())
    ]


def put(path, content):
    path.write_bytes(content.encode())
    return path


EXPECTED = [("7", "0054890", 5, 9.0), ("8", "54890", 4, 2.5), ("7", "x", 3, 0.0)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ratings.dat", "7::0054890::9::5\n8::54890::2.5::4\n7::x::0::3\n"),
        ("ratings.dat", "7::0054890::9::5\r\n\r\n8::54890::2.5::4\r\n7::x::0::3"),
        ("u.data", "7\t0054890\t9\t5\n8\t54890\t2.5\t4\n7\tx\t0\t3\n"),
        ("r.csv", "userId,movieId,rating,timestamp\n7,0054890,9,5\n8,54890,2.5,4\n7,x,0,3\n"),
        ("r.csv", "\ufeffuserId,movieId,rating,timestamp\n7,0054890,9,5\n8,54890,2.5,4\n7,x,0,3"),
        ("log.csv", 'rating,"user_id",note,item_id,timestamp\n'
                    '9.0,7,"a\nb",0054890,5\n2.5,8,,54890,4\n0,7,"c,d","x",3\n'),
        ("log.tsv", "item_id\tuser_id\ttimestamp\trating\n"
                    "0054890\t7\t5\t9\n54890\t8\t4\t2.5\nx\t7\t3\t0e0\n"),
    ],
)  # fmt: skip
def test_text_formats_keep_ids_as_text_and_rows_in_order(tmp_path, name, content):
    log = whole(put(tmp_path / name, content))
    assert rows(log) == EXPECTED
    assert log.timed
    kinds = [log.users, log.timestamps, log.ratings]
    assert [array.dtype for array in kinds] == [np.int32, np.int64, np.float32]


@pytest.mark.parametrize("content", ["u1 a\nu2  b\nu1 b\n", "u1\ta\r\n\r\n u2\t b \r\nu1 b"])
def test_pairs_take_the_row_number_as_time(tmp_path, content):
    log = whole(put(tmp_path / "log.txt", content))
    assert rows(log) == [("u1", "a", 0, None), ("u2", "b", 1, None), ("u1", "b", 2, None)]
    assert not log.timed


def test_a_file_of_many_blocks_is_one_log(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 64)
    expected = [(f"u{i % 7}", f"i{i % 11}", i, float(i % 5)) for i in range(300)]
    content = "".join(f"{u}::{i}::{r}::{t}\n" for u, i, t, r in expected)
    log = whole(put(tmp_path / "ratings.dat", content))
    assert rows(log) == expected
    assert log.user_ids.to_pylist() == [f"u{i}" for i in range(7)]


PACKED = {"xz": lzma.compress, "gz": gzip.compress, "bz2": bz2.compress}


@pytest.mark.parametrize("ending", PACKED)
def test_packed_files_are_unpacked_on_the_way(tmp_path, ending):
    pack = PACKED[ending]
    (tmp_path / f"ratings.dat.{ending}").write_bytes(pack(b"7::x::0::3\n"))
    (tmp_path / f"movies.dat.{ending}").write_bytes(pack("x::Ü::War\n".encode()))
    assert rows(whole(tmp_path)) == [("7", "x", 3, 0.0)]
    assert read_log(tmp_path).titles == {"x": ("Ü", "War")}
    table = tmp_path / f"log.csv.{ending}"
    table.write_bytes(pack(b"user_id,item_id,timestamp\n7,x,3\n"))
    assert read_log(table).format == "csv"
    assert rows(whole(table)) == [("7", "x", 3, None)]


TIMES = {
    "s": ("1714500000", "1714500000.9", "2024-04-30 18:00:00"),
    "ms": ("1714500000999", "1714500000123.5", "2024-04-30 18:00:00"),
    "us": ("1714500000999999", "1714500000123456", "2024-04-30T18:00:00Z"),
    "ns": ("1714500000100000000", "1714500000123456789", "2024-04-30"),
}


@pytest.mark.parametrize("unit", TIMES)
def test_times_in_other_units(tmp_path, unit):
    text = "".join(f"u,i{n},{time}\n" for n, time in enumerate(TIMES[unit]))
    table = put(tmp_path / "log.csv", f"user_id,item_id,timestamp\n{text}")
    read = whole(table, columns=Columns(unit=unit)).timestamps.tolist()
    assert read == [WHEN, WHEN, WHEN if unit != "ns" else WHEN - 18 * 3600]
    factor = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
    numbers = pa.array([int(WHEN * factor)], pa.int64())
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["i"], "timestamp": numbers}), path)
    assert whole(path, columns=Columns(unit=unit)).timestamps.tolist() == [WHEN]


EVENTS = """\
visitorid,itemid,timestamp,event
1,a,5,view
1,b,6,addtocart
2,a,x,transaction
2,b,8,
1,a,9,view
"""


def test_rows_of_other_events_are_left_out(tmp_path):
    table = put(tmp_path / "log.csv", EVENTS)
    columns = Columns("visitorid", "itemid", event="event", events=("view", "addtocart"))
    (block,) = read_log(table, columns=columns).blocks(1 << 40)
    # What is wrong with a row that is left out does not matter.
    assert rows(block.interactions) == [
        ("1", "a", 5, None), ("1", "b", 6, None), ("1", "a", 9, None),
    ]  # fmt: skip
    assert block.events == {"view": 2, "addtocart": 1, "transaction": 1, "": 1}


def test_a_bad_row_among_chosen_ones_is_named_by_its_line(tmp_path):
    table = put(tmp_path / "log.csv", EVENTS)
    columns = Columns("visitorid", "itemid", event="event", events=("transaction",))
    with pytest.raises(UserError, match=r"log\.csv, line 4: the timestamp 'x' is not valid"):
        whole(table, columns=columns)


def test_a_block_without_a_chosen_row_has_no_wrong_type(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 2)
    columns = Columns(event="kind", events="buy")
    log = {"user_id": [1.5, 1.5, 2.5], "item_id": ["a", "b", "c"], "timestamp": [1, 2, 3]}
    pq.write_table(pa.table({**log, "kind": ["view", "view", "buy"]}), tmp_path / "log.parquet")
    with pytest.raises(UserError, match=r"row 3: the user id 2\.5 is of type double"):
        whole(tmp_path / "log.parquet", columns=columns)


def test_events_in_lists_and_as_numbers(tmp_path):
    pq.write_table(
        pa.table({"user_id": ["u", "v"], "item_id": [["a", "b"], ["c"]],
                  "timestamp": [[1, 2], [3]], "kind": [[1, 2], [2]]}),
        tmp_path / "log.parquet",
    )  # fmt: skip
    log = whole(tmp_path / "log.parquet", columns=Columns(event="kind", events=("2",)))
    assert rows(log) == [("u", "b", 2, None), ("v", "c", 3, None)]


@pytest.mark.parametrize(
    "kinds, wanted",
    [([4.0, 4.5, None, 5.0], (4, "4.5")), ([4.0, 4.5, None, 5.0], (4.0, 4.5)),
     ([True, True, None, False], (True,)), ([True, True, None, False], ("true",))],
)  # fmt: skip
def test_events_as_fractions_and_as_true_and_false(tmp_path, kinds, wanted):
    log = {"user_id": list("uuvv"), "item_id": list("abcd"), "timestamp": [1, 2, 3, 4]}
    pq.write_table(pa.table({**log, "kind": kinds}), tmp_path / "log.parquet")
    found = whole(tmp_path / "log.parquet", columns=Columns(event="kind", events=wanted))
    assert rows(found) == [("u", "a", 1, None), ("u", "b", 2, None)]


def test_an_event_that_no_row_has(tmp_path):
    table = put(tmp_path / "log.csv", EVENTS)
    columns = Columns("visitorid", "itemid", event="event", events=("view", "buy"))
    log = read_log(table, columns=columns)
    with pytest.raises(UserError, match=r"no row has the event 'buy' in 'event'; there are 'view'"):
        list(log.blocks(1 << 40))


@pytest.mark.parametrize("given", [{"event": "event"}, {"events": ("view",)}])
def test_events_need_their_column(given):
    with pytest.raises(
        UserError, match=r"--event-column .* names the column of events, and --events"
    ):
        Columns(**given)


def test_titles_come_from_beside_the_log_or_from_the_file_given(tmp_path):
    put(tmp_path / "ratings.dat", "7::x::0::3\n")
    put(tmp_path / "movies.dat", "x::beside::\n")
    given = put(tmp_path / "mine.csv", "item_id,title\nx,given\n")
    assert read_log(tmp_path).titles == {"x": ("beside", "")}
    assert read_log(tmp_path / "ratings.dat").titles == {"x": ("beside", "")}
    log = read_log(tmp_path, titles=given)
    assert log.titles == {"x": ("given", "")}
    assert [name for name, _ in log.checksums] == ["ratings.dat", "mine.csv"]


def test_columns_may_have_other_names(tmp_path):
    table = put(tmp_path / "log.csv", "who,what,when,stars\na,x,5,3\n")
    assert rows(whole(table, columns=Columns("who", "what", "when", "stars"))) == [
        ("a", "x", 5, 3.0)
    ]
    log = whole(table, columns=Columns("who", "what", None, None))
    assert rows(log) == [("a", "x", 0, None)]
    assert not log.timed


def test_default_columns_of_time_and_rating_may_be_missing(tmp_path):
    table = put(tmp_path / "log.csv", "user_id,item_id\na,x\nb,x\n")
    assert rows(whole(table)) == [("a", "x", 0, None), ("b", "x", 1, None)]
    table = put(tmp_path / "log.csv", "user_id,item_id,timestamp,device\na,x,5,tv\n")
    assert rows(whole(table)) == [("a", "x", 5, None)]
    table = put(tmp_path / "log.csv", "user_id,item_id,rating\na,x,4\n")
    assert rows(whole(table)) == [("a", "x", 0, 4.0)]


def test_empty_ratings_of_tables_are_unrated(tmp_path):
    table = put(tmp_path / "log.csv", "user_id,item_id,rating,timestamp\na,x,,5\na,y,4,6\n")
    assert rows(whole(table)) == [("a", "x", 5, None), ("a", "y", 6, 4.0)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1714500000", WHEN),
        ("1714500000.0", WHEN),
        ("1714500000.9", WHEN),
        ("2024-04-30 18:00:00", WHEN),
        ("2024-04-30T18:00:00", WHEN),
        ("2024-04-30T18:00", WHEN),
        ("2024-04-30T18:00:00.123456", WHEN),
        ("2024-04-30T18:00:00Z", WHEN),
        ("2024-04-30T20:00:00+02:00", WHEN),
        ("2024-04-30T20:00:00+0200", WHEN),
        ("2024-04-30T13:00:00-05", WHEN),
        ("2024-04-30 18:00:00 UTC", WHEN),
        ("2024-04-30 18:00:00.123456 UTC", WHEN),
        ("2024-04-30 20:00:00 +0200", WHEN),
        ("2024-04-30 13:00 -05:00", WHEN),
        ("2024-04-30", WHEN - 18 * 3600),
        ("1970-01-01", 0),
        ("2100-12-31 23:59:59", 4_133_980_799),
    ],
)
def test_times_of_text_tables(tmp_path, text, seconds):
    # Beside a plain number: every field is understood for itself.
    content = f"user_id,item_id,timestamp\na,x,7\na,y,{text}\n"
    assert [row[2] for row in rows(whole(put(tmp_path / "log.csv", content)))] == [7, seconds]


@pytest.mark.parametrize("zone", [" EST", "  UTC", "Z UTC", "+02:00 UTC", " +2"])
def test_unclear_time_zones_are_refused(tmp_path, zone):
    content = f"user_id,item_id,timestamp\na,x,2024-04-30 18:00:00{zone}\n"
    table = put(tmp_path / "log.csv", content)
    with pytest.raises(UserError, match=r"line 2: the timestamp '2024-04-30 18.* is not valid"):
        whole(table)


@pytest.mark.parametrize(
    "times",
    [
        pa.array([WHEN], pa.int64()),
        pa.array([WHEN], pa.uint32()),
        pa.array([WHEN + 0.75], pa.float64()),
        pa.array([str(WHEN)]),
        pa.array([WHEN_WRITTEN], pa.large_string()),
        pa.array([WHEN_WRITTEN], pa.string_view()),
        pa.array(["2024-04-30T18:00:00"]).dictionary_encode(),
        pa.array([WHEN], pa.timestamp("s")),
        pa.array([WHEN * 1000 + 999], pa.timestamp("ms", "UTC")),
        pa.array([WHEN * 10**9], pa.timestamp("ns", "America/New_York")),
    ],
)
def test_times_of_typed_tables(tmp_path, times):
    table = pa.table({"user_id": ["a"], "item_id": ["x"], "timestamp": times})
    write_parquet(table, tmp_path / "log.parquet")
    assert rows(whole(tmp_path / "log.parquet")) == [("a", "x", WHEN, None)]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_dates_are_midnight_utc(tmp_path, kind):
    days = pa.array([datetime.date(2024, 4, 30)], kind)
    table = pa.table({"user_id": ["a"], "item_id": ["x"], "timestamp": days})
    pq.write_table(table, tmp_path / "log.parquet")
    assert rows(whole(tmp_path / "log.parquet")) == [("a", "x", WHEN - 18 * 3600, None)]


@pytest.mark.parametrize(
    ("users", "items", "ratings"),
    [
        ([1, 20, 1], ["07", "8", "9"], [1, None, 3]),
        (pa.array([1, 20, 1], pa.uint8()), pa.array(["07", "8", "9"], pa.large_string()),
         [1.0, None, 3]),
        (pa.array(["1", "20", "1"]).dictionary_encode(), ["07", "8", "9"],
         pa.array([1, None, 3], pa.decimal128(5, 2))),
        (["1", "20", "1"], ["07", "8", "9"], ["1", "", "3.0"]),
    ],
)  # fmt: skip
def test_ids_and_ratings_of_typed_tables(tmp_path, users, items, ratings):
    table = pa.table({"rating": ratings, "item_id": items, "user_id": users})
    pq.write_table(table, tmp_path / "log.parquet")
    log = whole(tmp_path / "log.parquet")
    assert rows(log) == [("1", "07", 0, 1.0), ("20", "8", 1, None), ("1", "9", 2, 3.0)]


def test_parquet_parts_and_batches_are_one_log(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 3)
    for part, first in (("b", 10), ("a", 0)):
        numbers = list(range(first, first + 10))
        table = pa.table({"user_id": numbers, "item_id": numbers, "timestamp": numbers})
        pq.write_table(table, tmp_path / f"{part}.parquet", row_group_size=4)
    assert rows(whole(tmp_path)) == [(str(i), str(i), i, None) for i in range(20)]
    assert [name for name, _ in read_log(tmp_path).checksums] == ["a.parquet", "b.parquet"]


def test_shipped_movietweetings_is_what_it_says():
    folder = resources.files("bert4rec_jax.data") / "movietweetings"
    with resources.as_file(folder / "ratings.dat.xz") as ratings:
        log, titles = whole(ratings), read_log(ratings).titles
    users, items = len(log.user_ids), len(log.item_ids)
    assert (len(log), users, items) == (141_695, 21_081, 12_611)
    assert set(log.item_ids.to_pylist()) <= titles.keys()
    assert rows(log)[0] == ("1", "0054890", 1_381_945_744, 9.0)
    assert titles["0002844"] == ("Fantômas - À l'ombre de la guillotine (1913)", "Crime|Drama")


HEADER = "user_id\titem_id\ttimestamp\ttitle\n"


def test_quotes_between_tabs_are_signs_like_others(tmp_path):
    """Two titles begin with a quote that is never closed; no row between them is swallowed."""
    titles = ['"Heroes' if n in (2, 7) else "Low" for n in range(10)]
    lines = [f"u{n % 3}\ti{n}\t{n}\t{title}\n" for n, title in enumerate(titles)]
    log = whole(put(tmp_path / "log.tsv", HEADER + "".join(lines)))
    assert [row[:3] for row in rows(log)] == [(f"u{n % 3}", f"i{n}", n) for n in range(10)]


@pytest.mark.parametrize(
    ("header", "title"),
    [(HEADER, '"two\nlines"'), (HEADER, '"a\ttab"'),
     ('"user_id"\t"item_id"\t"timestamp"\t"title"\n', '"Low"')],
)  # fmt: skip
def test_quotes_between_tabs_that_hold_fields_together(tmp_path, header, title):
    log = whole(put(tmp_path / "log.tsv", f'{header}u\t"i"\t5\t{title}\nv\tj\t6\tx\n'))
    assert rows(log) == [("u", "i", 5, None), ("v", "j", 6, None)]


@pytest.mark.parametrize("name", ["ml.inter", "ml.tsv"])
def test_names_of_columns_with_their_types(tmp_path, name):
    content = "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\ti\t3.5\t0.7e+1\n"
    path = put(tmp_path / name, content)
    assert read_log(path).format == "tsv"
    assert rows(whole(path)) == [("u", "i", 7, 3.5)]
    columns = Columns("user_id:token", "item_id", rating=None)
    assert rows(whole(path, columns=columns)) == [("u", "i", 7, None)]


def test_a_table_without_a_line_of_names(tmp_path):
    path = put(tmp_path / "log.csv", "17,42,1714500000\n17,43,1714500001\n")
    with pytest.raises(UserError, match="put a line with names before the first row, if that is"):
        read_log(path)


def test_a_control_character_in_a_field_is_a_character(tmp_path):
    path = put(tmp_path / "log.csv", "user_id,item_id,timestamp,q\n7,x,3,shoes\x01red\n8,y,4,\n")
    assert rows(whole(path)) == [("7", "x", 3, None), ("8", "y", 4, None)]
