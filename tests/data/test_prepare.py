import errno
import hashlib
import json
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert4rec_jax.data import download, parquet
from bert4rec_jax.data.columns import Columns
from bert4rec_jax.data.prepare import Report, is_prepared_from, prepare
from bert4rec_jax.data.rows import ArrayFile
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError

LOG = """user_id,item_id,rating,timestamp
b,x,4,5
a,x,1,8
b,w,2.5,3
b,x,4,5
a,w,,9
c,w,5,1
"""


@pytest.fixture
def log(tmp_path):
    file = tmp_path / "log.csv"
    file.write_text(LOG)
    return file


def snapshot(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def movietweetings(tmp_path_factory):
    return prepare("movietweetings", tmp_path_factory.mktemp("prepared") / "store")


def test_movietweetings_has_its_known_counts(movietweetings):
    report = movietweetings.report
    assert report == Report(
        read=141_695,
        duplicates=0,
        users=5_973,
        items=3_119,
        interactions=102_461,
        shortest=5,
        longest=338,
        rating_range=(0.0, 10.0),
        time_range=(1_362_062_838, 1_383_696_025),
        titled=3_119,
        users_left_out=21_081 - 5_973,
        items_left_out=12_611 - 3_119,
    )
    store = movietweetings.store
    assert (store.num_users, len(store.catalog), store.num_interactions) == (5_973, 3_119, 102_461)
    assert store.manifest["source"]["name"] == "movietweetings"
    assert store.manifest["source"]["max_rating"] == 10.0
    store.verify()


def test_the_same_input_gives_the_same_bytes(movietweetings, tmp_path):
    again = prepare("movietweetings", tmp_path / "again")
    assert snapshot(again.store.path) == snapshot(movietweetings.store.path)


def test_a_log_by_hand(log, tmp_path):
    prepared = prepare(log, tmp_path / "out", min_user_interactions=2, min_item_interactions=2)
    # b: w at 3, x at 5 (once); a: x at 8, w at 9; c has one row only.
    assert prepared.store.user_ids() == ["b", "a"]
    assert prepared.store.catalog.item_ids == ("w", "x")
    assert prepared.store.tokens.tolist() == [2, 3, 3, 2]
    assert prepared.report == Report(
        read=6,
        duplicates=1,
        users=2,
        items=2,
        interactions=4,
        shortest=2,
        longest=2,
        rating_range=(1.0, 5.0),
        time_range=(3, 9),
        titled=0,
        users_left_out=1,
    )


def test_the_manifest_tells_the_source_without_a_path(log, tmp_path):
    titles = tmp_path / "titles.csv"
    titles.write_text("item_id,title,genres\nw,Willow,Fantasy\n")
    prepared = prepare(
        log, tmp_path / "out", min_user_interactions=2, min_item_interactions=1, titles=titles
    )
    assert prepared.store.manifest["source"] == {
        "name": "log.csv",
        "format": "csv",
        "files": [
            {"name": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
            for file in (log, titles)
        ],
        "min_user_interactions": 2,
        "min_item_interactions": 1,
        "read": 6,
        "duplicates": 1,
        "max_rating": 5.0,
    }
    assert prepared.report.titled == 1
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()


def test_bots_are_left_out_before_items_are_counted(tmp_path):
    """Of bot's ten rows two are duplicates and three repeats in a row: five are left."""
    rows = [("bot", item, time) for time, item in enumerate("abbbccda")]
    rows += [("bot", "a", 0), ("bot", "b", 1), ("u", "a", 5), ("u", "c", 6), ("v", "a", 7)]
    log = tmp_path / "log.csv"
    lines = [f"{user},{item},{time}\n" for user, item, time in rows]
    log.write_text("user_id,item_id,timestamp\n" + "".join(lines))
    options = {"min_user_interactions": 1, "min_item_interactions": 2, "collapse_repeats": True}
    for most, users, items, left_out in (
        (None, ["bot", "u", "v"], ["a", "c"], None),
        (np.int64(5), ["bot", "u", "v"], ["a", "c"], 0),
        (4, ["u", "v"], ["a"], 1),
    ):
        made = prepare(log, tmp_path / "out", max_user_interactions=most, **options)
        assert made.store.user_ids() == users and list(made.store.catalog.item_ids) == items
        assert (made.report.too_active, made.report.users_left_out) == (left_out, 0)
        assert made.store.manifest["source"].get("max_user_interactions") == most


def test_a_maximum_is_told_apart_and_not_below_the_minimum(log, tmp_path):
    minima = {"min_user_interactions": 1, "min_item_interactions": 1}
    for most in (None, 99):
        prepare(log, tmp_path / "out", max_user_interactions=most, **minima)
        assert is_prepared_from(tmp_path / "out", log, **minima) == (most is None)
    with pytest.raises(UserError, match="max_user_interactions is 4; expected at least min"):
        prepare(log, tmp_path / "out", max_user_interactions=4)
    with pytest.raises(UserError, match=r"max_user_interactions is 9\.5; expected"):
        prepare(log, tmp_path / "out", max_user_interactions=9.5)
    with pytest.raises(UserError, match=r"rows_in_memory is 2\.5; expected a whole number"):
        prepare(log, tmp_path / "out", rows_in_memory=2.5)


def test_a_store_is_told_from_that_of_another_log_or_other_minima(log, tmp_path):
    minima = {"min_user_interactions": 1, "min_item_interactions": 1}
    prepare(log, tmp_path / "out", **minima)
    for name in minima:
        assert not is_prepared_from(tmp_path / "out", log, **{**minima, name: 2})
    moved = log.rename(tmp_path / "moved.csv")
    assert is_prepared_from(tmp_path / "out", moved, **minima)
    assert is_prepared_from(tmp_path / "out", log, **minima)  # by its name, as it is gone
    log.write_text(LOG.replace("c,w,5,1", "c,w,5,2"))
    assert not is_prepared_from(tmp_path / "out", log, **minima)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_columns_that_are_not_read_are_named(tmp_path, suffix):
    log = tmp_path / f"log.{suffix}"
    table = pa.table({"user_id": ["u"], "price": [2], "kind": ["buy"], "item_id": ["a"],
                      "timestamp": [1_714_500_000]})  # fmt: skip
    if suffix == "parquet":
        pq.write_table(table, log)
    elif suffix == "jsonl":
        log.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        mark = "," if suffix == "csv" else "\t"
        rows = (table.column_names, *(map(str, row.values()) for row in table.to_pylist()))
        log.write_text("".join(mark.join(row) + "\n" for row in rows))
    minima = {"min_user_interactions": 1, "min_item_interactions": 1}
    assert prepare(log, tmp_path / "all", **minima).report.unused == ("price", "kind")
    columns = {"event": "kind", "events": ["buy"], "rating": "price"}
    assert prepare(log, tmp_path / "some", columns=columns, **minima).report.unused == ()


def test_titles_of_other_ids_are_doubted(tmp_path):
    log, titles = tmp_path / "log.csv", tmp_path / "titles.csv"
    log.write_text("user_id,item_id,timestamp\nu,07,1600000000\nu,08,1600000001\n")
    minima = {"min_user_interactions": 1, "min_item_interactions": 1}
    said = []
    for row, count in (("8,Otto", 1), ("08,Otto", 1)):
        titles.write_text(f"item_id,title\n{row}\n")
        prepare(log, tmp_path / "out", titles=titles, notify=said.append, **minima)
        assert len(said) == count
    assert "titles.csv: none of its ids (such as '8') is one of the items (such as '07')" in said[0]


def test_titles_may_name_the_column_of_ids_as_the_log_does(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,sku,timestamp\na,1,5\na,2,6\n")
    (tmp_path / "titles.csv").write_text("id,sku,title\n1,2,Second\n2,1,First\n")
    minima = {"min_user_interactions": 1, "min_item_interactions": 1}
    log, titles = tmp_path / "log.csv", tmp_path / "titles.csv"
    store = prepare(log, tmp_path / "out", columns={"item": "sku"}, titles=titles, **minima).store
    assert dict(zip(store.catalog.item_ids, store.catalog.titles)) == {"1": "First", "2": "Second"}


def test_without_ratings_and_times(tmp_path):
    (tmp_path / "pairs.txt").write_text("a x\na y\n")
    prepared = prepare(
        tmp_path / "pairs.txt", tmp_path / "out", min_user_interactions=1, min_item_interactions=1
    )
    assert prepared.report.rating_range is None
    assert prepared.report.time_range is None
    assert prepared.store.manifest["source"]["max_rating"] is None
    assert not prepared.store.timed


def test_a_named_set_is_fetched_from_the_mirror_into_the_cache(tmp_path, monkeypatch):
    cached = tmp_path / "cache" / "ml-100k"
    cached.mkdir(parents=True)
    (cached / "u.data").write_text("1\t7\t4\t5\n1\t8\t4\t6\n")
    asked = {}

    def fetch(name, **options):
        asked.update(options, name=name)
        return cached

    monkeypatch.setattr(download, "fetch", fetch)
    prepared = prepare(
        "ml-100k",
        tmp_path / "out",
        min_user_interactions=1,
        min_item_interactions=1,
        cache=tmp_path / "cache",
        mirror="https://mirror.example",
    )
    assert prepared.store.manifest["source"]["name"] == "ml-100k"
    assert (asked["name"], asked["cache"], asked["base_url"]) == (
        "ml-100k", tmp_path / "cache", "https://mirror.example",
    )  # fmt: skip


@pytest.mark.parametrize("given", [{"cache": "kept"}, {"mirror": "https://mirror.example"}])
@pytest.mark.parametrize("source", ["movietweetings", "the log"])
def test_settings_of_downloads_are_refused_where_nothing_is_downloaded(
    source, given, log, tmp_path
):
    source = log if source == "the log" else source
    (name,) = given
    with pytest.raises(UserError, match=rf"^{name} is .*{source} is not downloaded; leave {name}"):
        prepare(source, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ml-1mm", r"ml-1mm does not exist, and no data set has this name \(did you mean ml-1m"),
        (
            "MovieTweeting",
            r"\(did you mean movietweetings\?\); give a log file, a folder or one of ",
        ),
        ("logs/absent.csv", r"logs/absent\.csv does not exist, .* this name; give a log file"),
    ],
)
def test_an_unknown_source_is_told_with_what_is_close(tmp_path, source, message):
    with pytest.raises(UserError, match=message):
        prepare(source, tmp_path / "out")


@pytest.mark.parametrize("options", [{"format": "csv"}, {"columns": Columns("a", "b")}])
def test_named_sets_take_no_format(tmp_path, options):
    with pytest.raises(UserError, match=r"format of movietweetings is known; .* give \./moviet"):
        prepare("movietweetings", tmp_path / "out", **options)


def test_a_foreign_output_folder_is_refused_before_anything_is_read(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_text("miaow")
    with pytest.raises(UserError, match="photos exists and is not prepared data; choose another"):
        prepare("no such source", folder)


def test_prepared_data_is_no_log(movietweetings, tmp_path):
    with pytest.raises(UserError, match="store is prepared already; give the log that it was made"):
        prepare(movietweetings.store.path, tmp_path / "out")


def test_nothing_left_by_the_filter_leaves_nothing_behind(log, tmp_path):
    with pytest.raises(UserError, match=r"no interaction is left of 5 after filtering"):
        prepare(log, tmp_path / "out", min_user_interactions=50)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_keeps_the_earlier_store(log, tmp_path, monkeypatch):
    options = {"min_user_interactions": 1, "min_item_interactions": 1}
    prepare(log, tmp_path / "out", **options)
    before = snapshot(tmp_path / "out")

    def full_disk(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numpy.save", full_disk)
    with pytest.raises(UserError, match="out: No space left on device; make room"):
        prepare(log, tmp_path / "out", min_user_interactions=2, min_item_interactions=1)
    assert snapshot(tmp_path / "out") == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.csv", "out"]
    SequenceStore.open(tmp_path / "out").verify()


def test_a_bad_row_leaves_nothing_behind(log, tmp_path):
    log.write_text(LOG + "c,w,good,1\n")
    with pytest.raises(UserError, match=r"log\.csv, line 8: the rating 'good'"):
        prepare(log, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv"]


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """One log as a file, as shards, with a row per user, and as shards of these."""
    generator = np.random.default_rng(0)
    columns = {
        "user_id": np.sort((generator.exponential(size=1500) * 20).astype(int)),
        "item_id": (generator.exponential(size=1500) * 12).astype(int),
        "timestamp": generator.integers(0, 40, 1500),
        "rating": generator.integers(1, 11, 1500) / 2,
    }
    table = pa.table(columns)
    lists = table.group_by("user_id", use_threads=False).aggregate(
        [(name, "list") for name in columns if name != "user_id"]
    )
    lists = lists.rename_columns(["user_id", "item_id", "timestamp", "rating"])
    folder = tmp_path_factory.mktemp("forms")
    for name, whole in (("rows", table), ("lists", lists)):
        pq.write_table(whole, folder / f"{name}.parquet", row_group_size=170)
        (folder / name).mkdir()
        for part in range(4):
            start, stop = (whole.num_rows * p // 4 for p in (part, part + 1))
            pq.write_table(
                whole.slice(start, stop - start), folder / name / f"part-{part}.snappy.parquet"
            )
        for ignored in (
            "_SUCCESS",
            "_metadata",
            ".part-0.parquet.crc",
            "._x.parquet",
            "_y.parquet",
        ):
            (folder / name / ignored).write_text("no log")
    return folder


@pytest.mark.parametrize("rows", [1 << 22, 100])
def test_shards_and_lists_give_the_store_of_one_file(forms, tmp_path, rows):
    minima = {"min_user_interactions": 4, "min_item_interactions": 6}
    whole = prepare(forms / "rows.parquet", tmp_path / "whole", **minima)
    assert whole.report.duplicates > 0
    assert 0 < whole.report.interactions < 1500 - whole.report.duplicates
    for name in ("rows", "lists.parquet", "lists"):
        other = prepare(forms / name, tmp_path / name, rows_in_memory=rows, **minima)
        assert other.store.fingerprint == whole.store.fingerprint
        assert other.report == whole.report


@pytest.mark.parametrize("rows", [1, 333, 1499])
def test_rows_in_memory_change_no_byte(forms, tmp_path, monkeypatch, rows):
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 100)
    whole = prepare(forms / "rows", tmp_path / "whole")
    part = prepare(forms / "rows", tmp_path / "part", rows_in_memory=rows)
    assert snapshot(part.store.path) == snapshot(whole.store.path)
    assert part.report == whole.report


def test_no_rows_in_memory_are_refused(log, tmp_path):
    with pytest.raises(UserError, match="rows_in_memory is 0; expected at least 1"):
        prepare(log, tmp_path / "out", rows_in_memory=0)


@pytest.mark.parametrize("name", ["min_user_interactions", "min_item_interactions"])
def test_minima_that_no_training_takes_are_refused(name, log, tmp_path):
    with pytest.raises(UserError, match=f"{name} is 0; expected at least 1"):
        prepare(log, tmp_path / "out", **{name: 0})


def test_rows_without_an_item_are_reported(tmp_path):
    table = pa.table({"user_id": ["a", "b"], "item_id": [["x", "y"], []]})
    pq.write_table(table, tmp_path / "log.parquet")
    report = prepare(
        tmp_path / "log.parquet", tmp_path / "out", min_user_interactions=1, min_item_interactions=1
    ).report
    assert (report.read, report.users, report.empty_histories) == (2, 1, 1)


@pytest.mark.parametrize("place", ["part-1", "part-3"])
def test_a_damaged_shard_is_named_and_leaves_nothing_behind(forms, tmp_path, place):
    shutil.copytree(forms / "rows", tmp_path / "log")
    shard = tmp_path / "log" / f"{place}.snappy.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[:4] + bytes(200) + content[204:])
    with pytest.raises(UserError, match=f"{place}.* is not a whole Parquet file"):
        prepare(tmp_path / "log", tmp_path / "deep" / "out", rows_in_memory=10)
    assert [file.name for file in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(errno.ENOSPC, "No space left on device"), UserError),
     (KeyboardInterrupt(), KeyboardInterrupt)],
)  # fmt: skip
@pytest.mark.parametrize("appends", [0, 2, 4])  # while reading, sorting, writing
def test_a_stop_anywhere_keeps_the_earlier_store(
    log, tmp_path, monkeypatch, error, raised, appends
):
    options = {"min_user_interactions": 1, "min_item_interactions": 1}
    prepare(log, tmp_path / "out", **options)
    before = snapshot(tmp_path / "out")
    append, calls = ArrayFile.append, []

    def stopped(file, values):
        calls.append(file)
        if len(calls) > 2 * appends:
            raise error
        append(file, values)

    monkeypatch.setattr(ArrayFile, "append", stopped)
    with pytest.raises(raised):
        prepare(log, tmp_path / "out", **options)
    assert snapshot(tmp_path / "out") == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.csv", "out"]


def test_a_log_that_changes_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id\na,x\n")
    original = sys.modules[prepare.__module__]._in_time_order

    def appended(*arguments, **options):
        with path.open("a") as file:
            file.write("a,y\n")
        return original(*arguments, **options)

    monkeypatch.setattr(sys.modules[prepare.__module__], "_in_time_order", appended)
    with pytest.raises(UserError, match=r"log.csv changed while it was read; start again"):
        prepare(path, tmp_path / "store", min_user_interactions=1, min_item_interactions=1)
    assert not (tmp_path / "store").exists()
