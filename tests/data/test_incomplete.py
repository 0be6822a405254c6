"""Rows without a user, an item or a time: refused, or left out as if they were not in the log."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from bert4rec_jax.data import delimited, jsonlines, parquet
from bert4rec_jax.data.prepare import is_prepared_from, prepare
from bert4rec_jax.data.readers import read_log
from bert4rec_jax.errors import UserError

MINIMA = {"min_user_interactions": 2, "min_item_interactions": 2}
NEEDED = ("user_id", "item_id", "timestamp")


def a_log(missing=True):
    """600 random interactions, of which some lack one value or several; or only the others."""
    generator = np.random.default_rng(0)
    columns = {
        "user_id": [f"u{n}" for n in generator.integers(0, 40, 600)],
        "item_id": [f"i{n}" for n in generator.integers(0, 30, 600)],
        "timestamp": generator.integers(1_700_000_000, 1_700_000_400, 600).tolist(),
        "rating": (generator.integers(1, 11, 600) / 2).tolist(),
    }
    for column in columns.values():
        for row in np.flatnonzero(generator.random(600) < 0.05):
            column[row] = None
    rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
    return rows if missing else [row for row in rows if None not in map(row.get, NEEDED)]


def lists(rows, groups=60):
    """Rows as a row per user, in the order of their first appearance; a user may have several."""
    found = {}
    for number, row in enumerate(rows):
        found.setdefault((number * groups // len(rows), row["user_id"]), []).append(row)
    return [
        {"user_id": user, **{k: [row[k] for row in group] for k in group[0] if k != "user_id"}}
        for (_, user), group in found.items()
    ]


def write(folder, form, rows):
    """A log in one of the forms that `prepare` takes."""
    table = pa.Table.from_pylist(rows)
    if form == "frame":
        return table
    path = folder / f"log.{form.removeprefix('lists.')}"
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".jsonl":  # what is null is written as null, or not at all
        dropped = ({k: v for k, v in row.items() if v is not None} for row in rows)
        whole = rows if form.startswith("lists") else [*dropped]
        path.write_text("\n".join(map(json.dumps, whole)))
    else:
        delimiter = {".csv": ",", ".tsv": "\t"}[path.suffix]
        options = pa_csv.WriteOptions(delimiter=delimiter, quoting_style="none")
        pa_csv.write_csv(table, path, options)
    return path


FORMS = ("csv", "tsv", "jsonl", "parquet", "frame", "lists.jsonl", "lists.parquet")


@pytest.mark.parametrize("rows", [1 << 22, 100, 1])
@pytest.mark.parametrize("form", FORMS)
def test_the_store_is_that_of_the_log_without_these_rows(tmp_path, monkeypatch, form, rows):
    for module in (delimited, jsonlines):
        monkeypatch.setattr(module, "_BLOCK_BYTES", 4096)
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 50)
    shaped = lists if "lists" in form else list
    made = []
    for missing in (True, False):
        (tmp_path / str(missing)).mkdir()
        log = write(tmp_path / str(missing), form, shaped(a_log(missing)))
        options = {"skip_incomplete": missing, "rows_in_memory": rows, **MINIMA}
        made.append(prepare(log, tmp_path / str(missing) / "store", **options))
    skipped, removed = made
    assert skipped.store.fingerprint == removed.store.fingerprint
    assert skipped.report.incomplete == 600 - len(a_log(missing=False)) > 50
    assert (removed.report.incomplete, removed.report.read) == (None, skipped.report.read)
    assert skipped.store.manifest["source"]["incomplete"] == skipped.report.incomplete
    assert "incomplete" not in removed.store.manifest["source"]


@pytest.mark.parametrize("form", FORMS)
def test_without_the_option_the_first_row_is_refused_with_the_way_out(tmp_path, form):
    rows = a_log(missing=False)[:30]
    rows[7] |= {"item_id": None}
    log = write(tmp_path, form, lists(rows, groups=1) if "lists" in form else rows)
    with pytest.raises(UserError) as caught:
        prepare(log, tmp_path / "store")
    assert f"{'line' if 'v' in form or 'json' in form else 'row'} " in str(caught.value)
    assert str(caught.value).endswith(
        ": the item id is empty; every row needs a user and an item: fix or remove the row, or "
        "prepare the log with --skip-incomplete (in Python: skip_incomplete=True), which leaves "
        "out such rows"
    )


def test_an_empty_time_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,i,5\nu,j,\n")
    with pytest.raises(
        UserError, match=r"log\.csv, line 3: the timestamp is empty; expected sec"
    ) as caught:
        prepare(tmp_path / "log.csv", tmp_path / "store")
    assert "prepare the log with --skip-incomplete" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"timestamp": ["1", "", "soon"]}, "row 3: the timestamp 'soon' is not valid; expected"),
        ({"timestamp": [1.0, None, float("nan")]}, "row 3: the timestamp nan is not valid; exp"),
        ({"timestamp": [1, None, -1]}, "row 3: the timestamp -1 lies before 1970"),
        ({"item_id": [None, 1.5, 2.0]}, "row 2: the item id 1.5 is of type double; expected text"),
        ({"item_id": ["", "x", "y"], "rating": ["?", "1", "x"]}, "row 3: the rating 'x' is not v"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_another_way_stays_an_error(tmp_path, columns, message):
    """And what else is wrong with a row that is left out does not matter."""
    log = {"user_id": ["a"] * 3, "item_id": ["x"] * 3, "timestamp": [1, 2, 3], **columns}
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    with pytest.raises(UserError, match=message):
        prepare(tmp_path / "log.parquet", tmp_path / "store", skip_incomplete=True)


def test_ids_that_say_nan_are_ids(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nnan,NULL,1\n ,None,2\n,x,3\n")
    minima = {"min_user_interactions": 1, "min_item_interactions": 1}
    made = prepare(tmp_path / "log.csv", tmp_path / "store", skip_incomplete=True, **minima)
    assert (made.store.user_ids(), made.report.incomplete) == (["nan", " "], 1)


def test_lists_of_other_lengths_stay_an_error(tmp_path):
    rows = [{"user_id": "a", "item_id": ["x", None], "timestamp": [1]}]
    log = write(tmp_path, "lists.parquet", rows)
    with pytest.raises(UserError, match="items: 2, timestamps: 1; the lists of a row need the sam"):
        prepare(log, tmp_path / "store", skip_incomplete=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ratings.dat", "1::7::4::5\n::7::4::5\n1::::4::6\n1::8::4::\n"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,7,4,5\n,7,4,5\n1,,4,6\n1,8,4,\n"),
    ],
)
def test_formats_that_have_their_own_columns(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    (block,) = read_log(tmp_path / name).blocks(1 << 40, skip_incomplete=True)
    assert (len(block.interactions), block.incomplete) == (1, 3)


def test_rows_of_other_events_are_not_incomplete(tmp_path):
    (tmp_path / "log.csv").write_text(
        "user_id,item_id,timestamp,event\nu,x,1,buy\n,x,2,buy\nu,,3,view\nu,y,4,view\n"
    )
    columns = {"event": "event", "events": ["buy"]}
    minima = {"min_user_interactions": 1, "min_item_interactions": 1}
    report = prepare(
        tmp_path / "log.csv", tmp_path / "out", columns=columns, skip_incomplete=True, **minima
    ).report
    assert (report.read, report.incomplete, report.other_events) == (1, 1, 2)


def test_a_column_without_any_value_is_told(tmp_path):
    log = pa.table({"user_id": ["a", "b"], "item_id": pa.nulls(2), "timestamp": [1, 2]})
    with pytest.raises(UserError, match="the table has no row with a user, an item and a time: 2"):
        prepare(log, tmp_path / "store", skip_incomplete=True)


def test_a_store_with_rows_left_out_is_not_that_of_the_whole_log(tmp_path):
    """A run on the log itself would refuse these rows."""
    log = write(tmp_path, "csv", a_log(missing=False))
    for skipped in (False, True):
        prepare(log, tmp_path / "store", skip_incomplete=skipped, **MINIMA)
        assert is_prepared_from(tmp_path / "store", log, **MINIMA) != skipped


def test_the_option_is_yes_or_no(tmp_path):
    with pytest.raises(UserError, match="skip_incomplete is of type str; expected True or False"):
        prepare("movietweetings", tmp_path / "store", skip_incomplete="no")
