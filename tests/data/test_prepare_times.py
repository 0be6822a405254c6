"""Prepared times: order within a second, doubts about implausible times, and partitions."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert4rec_jax.data.prepare import is_prepared_from, prepare
from bert4rec_jax.data.rows import ArrayFile
from bert4rec_jax.errors import UserError

MINIMA = {"min_user_interactions": 1, "min_item_interactions": 1}
SECOND = 1_714_500_000
DAY = "2024-04-30T18:00:00"


def history(prepared):
    """The items of a store with one user, oldest first."""
    return "".join(prepared.store.catalog.item_id(int(token)) for token in prepared.store.tokens)


@pytest.mark.parametrize("rows", [1 << 22, 1])
@pytest.mark.parametrize(
    ("times", "unit"),
    [
        ([f"{SECOND}.25", f"{SECOND}.125", f"{SECOND}.5", str(SECOND)], "s"),
        ([SECOND + 0.25, SECOND + 0.125, SECOND + 0.5, SECOND + 0.0], "s"),
        ([SECOND * 1000 + part for part in (2, 1, 3, 0)], "ms"),
        ([SECOND * 10**6 + part for part in (2, 1, 3, 0)], "us"),
        ([SECOND * 10**9 + part for part in (2, 1, 3, 0)], "ns"),
        ([str(SECOND * 10**9 + part) for part in (2, 1, 3)] + [DAY], "ns"),
        ([f"{SECOND}001.5", f"{SECOND}001.25", f"{SECOND}002", DAY], "ms"),
        ([f"{DAY}.2", f"{DAY}.000000001", f"{DAY}.200000001", DAY], "s"),
        (pa.array([SECOND * 1000 + part for part in (2, 1, 3, 0)], pa.timestamp("ms")), "s"),
        (pa.array([SECOND * 10**9 + part for part in (2, 1, 3, 0)], pa.timestamp("ns", "UTC")),
         "s"),
    ],
)  # fmt: skip
def test_events_of_one_second_are_sorted_by_what_is_finer(tmp_path, times, unit, rows):
    table = pa.table({"user_id": ["u"] * 4, "item_id": list("cbda"), "timestamp": times})
    pq.write_table(table, tmp_path / "log.parquet")
    lists = table.group_by("user_id", use_threads=False).aggregate(
        [("item_id", "list"), ("timestamp", "list")]
    )
    lists = lists.rename_columns(["user_id", "item_id", "timestamp"])
    pq.write_table(lists, tmp_path / "lists.parquet")
    for name in ("log", "lists"):
        prepared = prepare(
            tmp_path / f"{name}.parquet",
            tmp_path / name,
            columns={"unit": unit},
            rows_in_memory=rows,
            **MINIMA,
        )
        assert history(prepared) == "abcd"
        assert prepared.store.timestamps.tolist() == [SECOND] * 4


def test_whole_seconds_take_no_more_disk(tmp_path, monkeypatch):
    rows = "user_id,item_id,timestamp\nb,x,5\na,x,8\n"
    log = tmp_path / "log.csv"
    log.write_text(rows)
    opened = []
    start = ArrayFile.__init__

    def noted(file, path, dtype):
        opened.append(path.name)
        start(file, path, dtype)

    monkeypatch.setattr(ArrayFile, "__init__", noted)
    prepare(log, tmp_path / "whole", **MINIMA)
    assert "fractions.npy" not in opened
    log.write_text(rows + "c,w,1.5\n")
    prepare(log, tmp_path / "finer", **MINIMA)
    assert opened.count("fractions.npy") == 1


def told(tmp_path, times, unit="s"):
    """What is told of a log with these times."""
    sentences = []
    table = pa.table({"user_id": ["u"] * len(times), "item_id": ["i"] * len(times), "t": times})
    columns = {"unit": unit, "timestamp": "t"}
    prepare(table, tmp_path / "store", columns=columns, notify=sentences.append, **MINIMA)
    return sentences


def test_times_of_which_one_is_plausible_are_not_doubted(tmp_path):
    assert told(tmp_path, [0, 1_714_500_000]) == []
    assert told(tmp_path, [5]) == []


def test_quantities_as_times_are_doubted(tmp_path):
    assert told(tmp_path, [3, 1, 86_400]) == [
        "table: all times lie before 1980 (1970-01-01 00:00:01 to 1970-01-02 00:00:00), read as "
        "seconds since 1970; this does no harm if they only count the order; else name the column "
        "of times with `bert4rec prepare --timestamp-column NAME` (in Python: "
        "columns={'timestamp': NAME}) and its unit with --timestamp-unit (in Python: "
        "columns={'unit': UNIT})"
    ]


def test_equal_times_are_doubted(tmp_path):
    (sentence,) = told(tmp_path, [1_714_500_000] * 3)
    assert sentence.startswith("table: all times are 2024-04-30 18:00:00, to the second; if this")


@pytest.mark.parametrize(
    ("unit", "factor", "right"), [("ms", 1, "s"), ("us", 1000, "ms"), ("ns", 1, "s")]
)
def test_times_of_a_coarser_unit_are_refused(tmp_path, unit, factor, right):
    with pytest.raises(UserError) as caught:
        told(tmp_path, [1_714_500_000 * factor, 1_714_600_000 * factor], unit)
    assert "the last time is 1970-01-" in str(caught.value)
    assert str(caught.value).endswith(
        f"prepare the log with --timestamp-unit {right} (in Python: columns={{'unit': '{right}'}})"
    )
    assert str(caught.value).startswith("the table: read as ")
    assert list(tmp_path.iterdir()) == []


def test_pairs_have_no_times_to_doubt(tmp_path):
    sentences = []
    (tmp_path / "pairs.txt").write_text("a x\na y\n")
    prepare(tmp_path / "pairs.txt", tmp_path / "out", notify=sentences.append, **MINIMA)
    assert sentences == []


@pytest.mark.parametrize("nested", [False, True])
def test_partitions_are_one_log(tmp_path, nested):
    log = tmp_path / "log"
    for month, item in (("2024-02", "b"), ("2024-01", "a")):
        folder = log / f"month={month}" / ("country=de" if nested else ".")
        folder.mkdir(parents=True)
        pq.write_table(
            pa.table({"user_id": ["u"], "item_id": [item]}), folder / "part-0000.parquet"
        )
    (log / "_SUCCESS").touch()
    for ignored in ("_temporary=1", ".hidden=1", "other"):
        (log / ignored).mkdir()
        (log / ignored / "part-0000.parquet").write_text("no log")
    prepared = prepare(log, tmp_path / "out", **MINIMA)
    assert history(prepared) == "ab"
    within = "country=de/part-0000.parquet" if nested else "part-0000.parquet"
    names = [file["name"] for file in prepared.store.manifest["source"]["files"]]
    assert names == [f"month=2024-01/{within}", f"month=2024-02/{within}"]
    assert is_prepared_from(tmp_path / "out", log, min_user_interactions=1, min_item_interactions=1)
